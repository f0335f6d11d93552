"""Converts parameters and masks between the specification's arrays and this port's tensors.

The specification has one matrix (features, H) per gate. This port has one matrix (G*H, features) for all gates, with a
block of H rows per gate, as in torch's own recurrent layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rhn.spec.config import RHNConfig
from rhn.spec.layers import Cell, LayerConfig, check_layer_parameters
from rhn.spec.masks import NO_MASKS, VariationalMasks
from rhn.spec.parameters import check_parameters


def from_spec(config: RHNConfig, arrays: Mapping[str, NDArray]) -> dict[str, Tensor]:
    """Values of the parameters of an `RHNLanguageModel`, by its own names, from arrays by the names of SPEC.md 1.3.

    Raises:
        ValueError: the arrays do not fit the configuration.
    """
    check_parameters(config, arrays)
    named = _tensors(arrays)
    values = {"embedding": named["embedding"], "softmax_bias": named["softmax.bias"]}
    if not config.tie_weights:
        values["softmax_weight"] = named["softmax.weight"].t()
    if config.has_projection:
        values["projection_weight"] = named["projection.weight"].t()
    layers = LayerConfig(config.embedding_width, config.hidden_size, config.recurrence_depth, config.num_layers)
    for cell in layers.cells():
        values |= _cell_from_spec(named, cell, "rhn.")
    return values


def to_spec(config: RHNConfig, tensors: Mapping[str, Tensor]) -> dict[str, NDArray]:
    """The inverse of `from_spec`, for parameters and whatever has their shapes, such as gradients; copies."""
    named = {"embedding": tensors["embedding"]}
    layers = LayerConfig(config.embedding_width, config.hidden_size, config.recurrence_depth, config.num_layers)
    for cell in layers.cells():
        named |= _cell_to_spec(tensors, cell, "rhn.", config.recurrence_depth, config.num_gates)
    if not config.tie_weights:
        named["softmax.weight"] = tensors["softmax_weight"].t()
    named["softmax.bias"] = tensors["softmax_bias"]
    if config.has_projection:
        named["projection.weight"] = tensors["projection_weight"].t()
    return {name: to_numpy(tensor) for name, tensor in named.items()}


def layers_from_spec(config: LayerConfig, arrays: Mapping[str, NDArray]) -> dict[str, Tensor]:
    """Values of the parameters of an `RHN`, by its own names, from arrays by the names of SPEC.md 7.5.

    Raises:
        ValueError: the arrays do not fit the configuration.
    """
    check_layer_parameters(config, arrays)
    named = _tensors(arrays)
    values: dict[str, Tensor] = {}
    for cell in config.cells():
        values |= _cell_from_spec(named, cell)
    return values


def layers_to_spec(config: LayerConfig, tensors: Mapping[str, Tensor]) -> dict[str, NDArray]:
    """The inverse of `layers_from_spec`; zeros for missing biases; copies."""
    named: dict[str, Tensor] = {}
    for cell in config.cells():
        named |= _cell_to_spec(tensors, cell, "", config.recurrence_depth, config.num_gates)
    return {name: to_numpy(tensor) for name, tensor in named.items()}


def _cell_from_spec(named: Mapping[str, Tensor], cell: Cell, prefix: str = "") -> dict[str, Tensor]:
    own = prefix + _name_of(cell)
    values = {f"{own}.input_weight": _gates_to_rows(named[f"{cell.prefix}.input_weight"])}
    for micro_step, weight in enumerate(named[f"{cell.prefix}.recurrent_weight"]):  # (G, H, H)
        values[f"{own}.recurrent_weights.{micro_step}"] = _gates_to_rows(weight)
    values[f"{own}.bias"] = named[f"{cell.prefix}.bias"].flatten(1)  # (L, G*H)
    return values


def _cell_to_spec(
    tensors: Mapping[str, Tensor], cell: Cell, prefix: str, depth: int, num_gates: int
) -> dict[str, Tensor]:
    own = prefix + _name_of(cell)
    weights = [_rows_to_gates(tensors[f"{own}.recurrent_weights.{step}"], num_gates) for step in range(depth)]
    bias = tensors.get(f"{own}.bias")  # (L, G*H)
    if bias is None:
        bias = weights[0].new_zeros(depth, num_gates * weights[0].shape[-1])
    return {
        f"{cell.prefix}.input_weight": _rows_to_gates(tensors[f"{own}.input_weight"], num_gates),
        f"{cell.prefix}.recurrent_weight": torch.stack(weights),  # (L, G, H, H)
        f"{cell.prefix}.bias": bias.unflatten(1, (num_gates, -1)),  # (L, G, H)
    }


def _name_of(cell: Cell) -> str:
    """The name in `RHN`: "cells.0" for "layers.0", "reverse_cells.0" for "layers.0.reverse"."""
    _, layer, *reverse = cell.prefix.split(".")
    return f"reverse_cells.{layer}" if reverse else f"cells.{layer}"


def _tensors(arrays: Mapping[str, NDArray]) -> dict[str, Tensor]:
    return {name: torch.as_tensor(np.asarray(array)) for name, array in arrays.items()}


def to_numpy(tensor: Tensor) -> NDArray:
    """A copy of the tensor; bfloat16, which NumPy does not have, as float32."""
    tensor = tensor.detach().cpu()
    return np.array((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy(), order="C")


def mask_tensors(masks: VariationalMasks | None, like: Tensor) -> VariationalMasks:
    """The masks as tensors with the dtype and on the device of `like`; such tensors are returned as they are."""
    return (NO_MASKS if masks is None else masks).map(lambda mask: to_device(mask, like.dtype, like.device))


def to_device(array: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The array as a tensor of this dtype on this device. The host does not wait for the copy."""
    tensor = torch.as_tensor(array, dtype=dtype)
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()  # its allocator keeps the memory until it has been read
    return tensor.to(device, non_blocking=True)


def _gates_to_rows(weight: Tensor) -> Tensor:
    """(G, features, H) to (G*H, features)."""
    return weight.transpose(1, 2).flatten(0, 1)


def _rows_to_gates(weight: Tensor, num_gates: int) -> Tensor:
    """(G*H, features) to (G, features, H)."""
    return weight.unflatten(0, (num_gates, -1)).transpose(1, 2)
