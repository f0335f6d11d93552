"""Between the specification's tensors and those of this port: parameters by name, and masks.

The specification keeps the gates in an axis of their own, (G, features, H); this port has them side by side in the
columns, (features, G*H), so that one product serves all gates, as Keras' kernels do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from rhn.spec.config import RHNConfig
from rhn.spec.masks import NO_MASKS, VariationalMasks


def from_spec(config: RHNConfig, tensors: Mapping[str, NDArray]) -> list[NDArray]:
    """Tensors by the names of `rhn.spec.parameters`, in the shapes and order of `RHNLanguageModel.parameters`."""
    softmax = ["softmax.bias"] if config.tie_weights else ["softmax.weight", "softmax.bias"]
    values = [tensors[name] for name in ("embedding", *softmax)]
    for layer in range(config.num_layers):
        values += cell_from_spec(tensors, f"layers.{layer}")
    return values


def to_spec(config: RHNConfig, values: Sequence[Any]) -> dict[str, NDArray]:
    """Inverse of `from_spec`, for the parameters and whatever has their shapes, such as gradients; copies."""
    arrays = [np.array(tf.convert_to_tensor(value)) for value in values]
    named = {"embedding": arrays.pop(0)}
    softmax = {} if config.tie_weights else {"softmax.weight": arrays.pop(0)}
    softmax["softmax.bias"] = arrays.pop(0)
    per_layer = len(arrays) // config.num_layers
    for layer in range(config.num_layers):
        named |= cell_to_spec(arrays[layer * per_layer :][:per_layer], f"layers.{layer}", config.num_gates)
    return named | softmax


def cell_from_spec(tensors: Mapping[str, NDArray], prefix: str) -> list[NDArray]:
    """The tensors of one layer, in the shapes and order of `RHNCell.parameters`."""
    recurrent = tensors[f"{prefix}.recurrent_weight"]  # (L, G, H, H)
    bias = tensors[f"{prefix}.bias"]  # (L, G, H)
    input_weight = _gates_to_columns(tensors[f"{prefix}.input_weight"])  # (E, G*H)
    return [input_weight, *map(_gates_to_columns, recurrent), bias.reshape(len(bias), -1)]


def cell_to_spec(arrays: Sequence[NDArray], prefix: str, num_gates: int) -> dict[str, NDArray]:
    """Inverse of `cell_from_spec`; copies."""
    input_weight, *recurrent, bias = arrays
    return {
        f"{prefix}.input_weight": _columns_to_gates(input_weight, num_gates),  # (G, E, H)
        f"{prefix}.recurrent_weight": np.stack([_columns_to_gates(weight, num_gates) for weight in recurrent]),
        f"{prefix}.bias": bias.reshape(len(bias), num_gates, -1),  # (L, G, H)
    }


def mask_tensors(masks: VariationalMasks | None, dtype: str) -> VariationalMasks:
    """Masks of NumPy arrays or tensors as tensors of `dtype`; None drops nothing."""
    if masks is None:
        return NO_MASKS
    # A plain list of the four is what Keras makes of them when it saves a functional model.
    return VariationalMasks(*masks).map(
        lambda mask: tf.cast(mask, dtype) if tf.is_tensor(mask) else tf.convert_to_tensor(np.asarray(mask), dtype)
    )


def _gates_to_columns(weight: NDArray) -> NDArray:
    """(G, features, H) to (features, G*H)."""
    return np.concatenate(weight, axis=1)


def _columns_to_gates(weight: NDArray, num_gates: int) -> NDArray:
    """(features, G*H) to (G, features, H)."""
    return np.stack(np.split(weight, num_gates, axis=1))
