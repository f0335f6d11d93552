"""Between the specification's arrays and this port's tensors: parameters, and masks.

The specification has a matrix (features, H) for each gate. This port has one matrix (G*H, features) for all, with a
block of H rows for each gate, as torch's own recurrent layers have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rhn.spec.config import RHNConfig
from rhn.spec.masks import NO_MASKS, VariationalMasks
from rhn.spec.parameters import check_parameters


def from_spec(config: RHNConfig, arrays: Mapping[str, NDArray]) -> dict[str, Tensor]:
    """Values of the parameters of an `RHNLanguageModel`, by its own names, from arrays by the names of SPEC.md 1.3.

    Raises:
        ValueError: the arrays do not fit the configuration.
    """
    check_parameters(config, arrays)
    named = {name: torch.as_tensor(np.asarray(array)) for name, array in arrays.items()}
    values = {"embedding": named["embedding"], "softmax_bias": named["softmax.bias"]}
    if not config.tie_weights:
        values["softmax_weight"] = named["softmax.weight"].t()
    for i in range(config.num_layers):
        cell, layer = f"rhn.cells.{i}", f"layers.{i}"
        values[f"{cell}.input_weight"] = _gates_to_rows(named[f"{layer}.input_weight"])
        values[f"{cell}.bias"] = named[f"{layer}.bias"].flatten(1)
        for micro_step, weight in enumerate(named[f"{layer}.recurrent_weight"]):  # (G, H, H)
            values[f"{cell}.recurrent_weights.{micro_step}"] = _gates_to_rows(weight)
    return values


def to_spec(config: RHNConfig, tensors: Mapping[str, Tensor]) -> dict[str, NDArray]:
    """The inverse of `from_spec`, for parameters and whatever has their shapes, such as gradients; copies."""
    named = {"embedding": tensors["embedding"]}
    for i in range(config.num_layers):
        cell, layer = f"rhn.cells.{i}", f"layers.{i}"
        weights = [tensors[f"{cell}.recurrent_weights.{step}"] for step in range(config.recurrence_depth)]
        named[f"{layer}.input_weight"] = _rows_to_gates(tensors[f"{cell}.input_weight"], config.num_gates)
        named[f"{layer}.recurrent_weight"] = torch.stack([_rows_to_gates(w, config.num_gates) for w in weights])
        named[f"{layer}.bias"] = tensors[f"{cell}.bias"].unflatten(1, (config.num_gates, -1))
    if not config.tie_weights:
        named["softmax.weight"] = tensors["softmax_weight"].t()
    named["softmax.bias"] = tensors["softmax_bias"]
    return {name: to_numpy(tensor) for name, tensor in named.items()}


def to_numpy(tensor: Tensor) -> NDArray:
    """A copy of the tensor."""
    return np.array(tensor.detach().cpu().numpy(), order="C")


def mask_tensors(masks: VariationalMasks | None, like: Tensor) -> VariationalMasks:
    """The masks as tensors of the dtype of `like` and on its device; masks that are such tensors stay what they are."""
    return (NO_MASKS if masks is None else masks).map(lambda mask: to_device(mask, like.dtype, like.device))


def to_device(array: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """As a tensor of that dtype on that device. The host does not wait for the copy."""
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
