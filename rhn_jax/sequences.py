"""Sequences of different lengths in one batch, padded at their ends. Time is the first axis: (T, B, features)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


def check_lengths(lengths: ArrayLike, time: int, batch: tuple[int, ...]) -> Array:
    """`lengths` (B,) as an array of JAX.

    Raises:
        ValueError: they are not one integer per sequence; or their values are known, and one is not from 0 to T.
    """
    array = lengths if isinstance(lengths, jax.Array) else np.asarray(lengths)
    if array.shape != batch or not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(
            f"seq_lengths of shape {array.shape} and dtype {array.dtype} is not accepted: expected one integer per"
            f" sequence, of shape {batch}"
        )
    if not isinstance(array, jax.core.Tracer) and isinstance(time, int) and array.size > 0:
        values = np.asarray(array)  # by NumPy: within a traced function, JAX would only record the comparison
        if values.min() < 0 or values.max() > time:
            raise ValueError(
                f"seq_lengths from {values.min()} to {values.max()} is not accepted: expected integers from 0 to {time}"
            )
    return jnp.asarray(array)


def valid_steps(x: Array, lengths: Array) -> Array:
    """(T, B, 1), whether a time step of x (T, B, features) is within its sequence's length (B,)."""
    return _steps(x) < lengths[..., None]


def in_order_of_reading(x: Array, lengths: Array | None) -> Array:
    """x (T, B, features) with its valid steps from the last to the first; any padding stays at the end."""
    if lengths is None:
        return jnp.flip(x, axis=0)
    steps, ends = _steps(x), lengths[..., None]  # (T, 1, 1), (B, 1)
    return jnp.take_along_axis(x, jnp.where(steps < ends, ends - 1 - steps, steps), axis=0)


def _steps(x: Array) -> Array:
    """The number of each time step of x (T, B, features), with axes to broadcast: (T, 1, ..., 1)."""
    return jnp.arange(x.shape[0]).reshape(-1, *[1] * (x.ndim - 1))
