"""A small layer of the JAX port, its sizes, data for it, and how results are compared."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from rhn_jax import RHN

T, B, E, H, L = 5, 4, 3, 6, 2

LENGTHS = np.array([0, 2, T, 1])


def make_layer(seed: int = 0, **options: Any) -> RHN:
    """With parameters large enough that all of them have an effect."""
    return RHN(E, H, L, init_scale=0.8, rngs=nnx.Rngs(seed), **options)


def data(*shape: int) -> NDArray:
    return np.random.default_rng(len(shape)).standard_normal(shape or (B, T, E)).astype(np.float32)


def run(module: nnx.Module, *arguments: Any, **options: Any) -> Any:
    return nnx.jit(lambda module, arguments: module(*arguments, **options))(module, arguments)


def assert_close(actual: Any, expected: Any, tolerance: float = 2e-6) -> None:
    """Measured: 4e-7, in float32."""
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance)
