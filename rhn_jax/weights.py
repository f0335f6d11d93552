"""Converts parameters and masks between the specification's arrays and this port's arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rhn_jax.cell import RHNCell

Masks = TypeVar("Masks")


def from_spec(cell: RHNCell, tensors: Mapping[str, NDArray]) -> None:
    """Copy one layer's `input_weight` (G, E, H), `recurrent_weight` (L, G, H, H) and `bias` (L, G, H) into the cell."""
    put(cell.input_weight, _gates_to_columns(tensors["input_weight"]))
    for weight, tensor in zip(cell.recurrent_weights, tensors["recurrent_weight"], strict=True):
        put(weight, _gates_to_columns(tensor))
    put(cell.bias, np.reshape(tensors["bias"], cell.bias.shape))


def to_spec(cell: RHNCell) -> dict[str, NDArray]:
    """The inverse of `from_spec`: copies."""
    return {
        "input_weight": _columns_to_gates(copy_of(cell.input_weight), cell.num_gates),
        "recurrent_weight": np.stack(
            [_columns_to_gates(copy_of(weight), cell.num_gates) for weight in cell.recurrent_weights]
        ),
        "bias": copy_of(cell.bias).reshape(cell.recurrence_depth, cell.num_gates, -1),
    }


def put(parameter: nnx.Param[Array], value: NDArray) -> None:
    """Replace a parameter's value by a copy of `value`, in the parameter's dtype."""
    # NumPy converts it: JAX would compile that for every shape.
    parameter.set_value(jnp.array(np.asarray(value, parameter.dtype)))


def copy_of(parameter: nnx.Param[Array]) -> NDArray:
    """A copy of a parameter's value as a NumPy array; float32 if NumPy does not have its dtype, as for bfloat16."""
    known = np.issubdtype(parameter.dtype, np.floating)
    return np.array(parameter, parameter.dtype if known else np.float32, order="C")


def mask_tensors(masks: Masks, like: Array) -> Masks:
    """`masks`, of any structure, as arrays of JAX in the dtype of `like`; None stays None."""
    return jax.tree.map(lambda mask: jnp.asarray(mask, like.dtype), masks)


def _gates_to_columns(weight: NDArray) -> NDArray:
    """(G, features, H) to (features, G*H)."""
    return np.concatenate(weight, axis=1)


def _columns_to_gates(weight: NDArray, num_gates: int) -> NDArray:
    """(features, G*H) to (G, features, H)."""
    return np.stack(np.split(weight, num_gates, axis=1))
