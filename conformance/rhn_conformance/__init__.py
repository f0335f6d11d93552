"""Conformance suite for Recurrent Highway Network backends; see the README beside this package."""

from rhn.moved import keep_old_names

keep_old_names()
