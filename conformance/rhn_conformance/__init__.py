"""Conformance suite for Recurrent Highway Network backends; see the README beside this package."""
