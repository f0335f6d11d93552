"""The tests of this folder need JAX, and are left out where it is not installed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

if find_spec("jax") is None or find_spec("flax") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    # The arrays here are tiny: threads would only wait for each other, and machine code that is quick takes longer to
    # make than slow code to run.
    flags = (
        "--xla_cpu_multi_thread_eigen=false",
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
    )
    os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *flags)).strip()
    import jax


@pytest.fixture(autouse=True)
def own_precision() -> Iterator[None]:
    """A test that turns float64 on, as building a float64 model does, leaves the next one with JAX's default."""
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def float64(own_precision: None) -> None:
    jax.config.update("jax_enable_x64", True)


@pytest.fixture
def eagerly() -> Iterator[None]:
    """Every operation runs by itself and `lax.scan` is a loop in Python: compiling a hundred cases takes minutes."""
    with jax.disable_jit():
        yield
