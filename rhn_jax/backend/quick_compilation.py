"""Compiling in less time, for a process in which most programs run only once."""

from __future__ import annotations

import os

import jax

# The former code generator. A version of JAX that does not know the flag would end the process.
XLA_FLAGS = ["--xla_cpu_use_fusion_emitters=false"] if jax.__version_info__ < (0, 11) else []


def compile_quickly() -> None:
    """Turn off the optimisations of XLA's machine code; on a CPU, before anything is compiled."""
    os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *XLA_FLAGS)).strip()
    if jax.default_backend() == "cpu":  # this reads the flags
        jax.config.update("jax_disable_most_optimizations", True)
