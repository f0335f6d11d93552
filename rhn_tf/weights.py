"""Converts parameters and masks between the specification's arrays and this port's tensors.

The specification has one matrix (features, H) per gate. This port has one matrix (features, G*H) for all gates, with a
block of H columns per gate, as in Keras' kernels, so that one product serves all gates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from rhn.spec.config import RHNConfig
from rhn.spec.layers import LayerConfig, check_layer_parameters
from rhn.spec.masks import NO_MASKS, VariationalMasks


def from_spec(config: RHNConfig, tensors: Mapping[str, NDArray]) -> list[NDArray]:
    """Tensors by the names of `rhn.spec.parameters`, in the shapes and order of `RHNLanguageModel.parameters`."""
    values = [tensors[name] for name in ("embedding", *_softmax_names(config))]
    for layer in range(config.num_layers):
        values += cell_from_spec(tensors, f"layers.{layer}")
    return values


def to_spec(config: RHNConfig, values: Sequence[Any]) -> dict[str, NDArray]:
    """Inverse of `from_spec`, for the parameters and whatever has their shapes, such as gradients; copies."""
    arrays = [_to_numpy(value) for value in values]
    named = {"embedding": arrays.pop(0)}
    softmax = {name: arrays.pop(0) for name in _softmax_names(config)}
    per_layer = len(arrays) // config.num_layers
    for layer in range(config.num_layers):
        named |= cell_to_spec(arrays[layer * per_layer :][:per_layer], f"layers.{layer}", config.num_gates)
    return named | softmax


def _softmax_names(config: RHNConfig) -> list[str]:
    weight = [] if config.tie_weights else ["softmax.weight"]
    return [*weight, "softmax.bias", *(["projection.weight"] if config.has_projection else [])]


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
    # When Keras saves a functional model, it turns the named tuple into a plain list.
    return VariationalMasks(*masks).map(
        lambda mask: tf.cast(mask, dtype) if tf.is_tensor(mask) else tf.convert_to_tensor(np.asarray(mask), dtype)
    )


def check_masks(
    masks: VariationalMasks, cells: Sequence[Any], batch_size: int | None, time_axis: tuple[int | None, ...]
) -> None:
    """Raise ValueError unless the tensors `masks.input`, `masks.state` and `masks.update` fit the cells of a layer.

    Args:
        masks: as `mask_tensors` gives them.
        cells: of the layer, from below.
        batch_size: of the window; None if it is not known.
        time_axis: (T,) if input masks may be per time step, T None if it is not known; else ().
    """
    for name in ("input", "state", "update"):
        per_layer = getattr(masks, name)
        if per_layer is None:
            continue
        if len(per_layer) != len(cells):
            raise ValueError(
                f"masks.{name} of {len(per_layer)} entries is not accepted: expected one per layer, {len(cells)}"
            )
        for layer, (mask, cell) in enumerate(zip(per_layer, cells, strict=True)):
            features = cell.input_weight.shape[0] if name == "input" else cell.units
            shapes: list[tuple[int | None, ...]] = [(batch_size, features)]
            if name != "update":
                shapes = [(gates, batch_size, features) for gates in (1, cell.num_gates)]
            if name == "input" and time_axis:
                shapes += [(gates, batch_size, *time_axis, features) for gates in (1, cell.num_gates)]
            check_mask(f"{name}[{layer}]", mask, *shapes)


def check_mask(name: str, mask: tf.Tensor, *shapes: tuple[int | None, ...]) -> None:
    """Raise ValueError unless the mask has one of `shapes`, as far as they are known; it would be broadcast."""
    if not any(mask.shape.is_compatible_with(shape) for shape in shapes):
        raise ValueError(
            f"masks.{name} of shape {tuple(mask.shape)} is not accepted: expected shape {' or '.join(map(str, shapes))}"
        )


# ---------------------------------------------------------------------------------------------------------------------
# Layers on their own, by the names of `rhn.spec.layers`
# ---------------------------------------------------------------------------------------------------------------------


def export_parameters(*layers: Any) -> dict[str, NDArray]:
    """Copies of the parameters of built layers that are stacked on each other, by the names of `rhn.spec.layers`.

    Args:
        layers: from below: `RHN`s, or `keras.layers.Bidirectional`s of an `RHN` with num_layers=1. A layer without
            biases gives zeros.
    """
    named: dict[str, NDArray] = {}
    for prefix, cell in _cells(layers):
        tensors = (cell.input_weight, *cell.recurrent_weights, cell.biases)
        named |= cell_to_spec([_to_numpy(tensor) for tensor in tensors], prefix, cell.num_gates)
    return named


def load_parameters(parameters: Mapping[str, NDArray], *layers: Any) -> None:
    """Copy tensors named as in `rhn.spec.layers` into layers that are stacked on each other.

    Args:
        parameters: as `export_parameters` of any port gives them.
        layers: as in `export_parameters`; layers that are not built yet are built.

    Raises:
        ValueError: parameters do not fit the layers.
    """
    lowest = parameters.get("layers.0.input_weight")
    config = _layer_config(layers, input_size=1 if lowest is None else np.shape(lowest)[1])
    check_layer_parameters(config, parameters)
    for prefix, cell in _cells(layers):
        if not cell.use_bias and np.any(parameters[f"{prefix}.bias"]):
            raise ValueError(f"{prefix}.bias is not accepted with use_bias=False: expected zeros")
    features = config.input_size
    for layer in layers:
        if not layer.built:
            layer.build((None, None, features))
        features = config.output_size
    for prefix, cell in _cells(layers):
        for variable, value in zip(cell.parameters, cell_from_spec(parameters, prefix), strict=False):
            variable.assign(value)  # the bias is last, and left over where the cell has none


def _cells(layers: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """The first part of the names of an `RHNCell`'s tensors, and the cell, in the order of `LayerConfig.cells`."""
    number = 0
    for layer in layers:
        if isinstance(layer, keras.layers.Bidirectional):
            for prefix, direction in (("", layer.forward_layer), (".reverse", layer.backward_layer)):
                if direction.num_layers != 1:
                    raise ValueError(
                        f"num_layers={direction.num_layers} is not accepted within Bidirectional: expected one"
                        " Bidirectional for each layer, of an RHN with num_layers=1"
                    )
                yield f"layers.{number}{prefix}", direction.cells[0]
            number += 1
        else:
            for cell in layer.cells:
                yield f"layers.{number}", cell
                number += 1


def _layer_config(layers: Sequence[Any], input_size: int) -> LayerConfig:
    """The architecture of the layers together.

    Raises:
        ValueError: their sizes or kinds differ.
    """
    prefixes, cells = zip(*_cells(layers), strict=True)
    directions = "both" if any(prefix.endswith(".reverse") for prefix in prefixes) else "forward"
    num_layers = len(prefixes) // (2 if directions == "both" else 1)
    options = {(cell.units, cell.recurrence_depth, cell.couple_gates) for cell in cells}
    units, depth, couple_gates = next(iter(options))
    config = LayerConfig(input_size, units, depth, num_layers, directions, couple_gates)
    if len(options) > 1 or [cell.prefix for cell in config.cells()] != list(prefixes):
        raise ValueError("layers of different sizes or directions are not accepted: expected all of one kind")
    return config


def _to_numpy(variable: Any) -> NDArray:
    """A copy; bfloat16, which NumPy does not have, as float32."""
    tensor = tf.convert_to_tensor(variable)
    return np.array(tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor)


def _gates_to_columns(weight: NDArray) -> NDArray:
    """(G, features, H) to (features, G*H)."""
    return np.concatenate(weight, axis=1)


def _columns_to_gates(weight: NDArray, num_gates: int) -> NDArray:
    """(features, G*H) to (G, features, H)."""
    return np.stack(np.split(weight, num_gates, axis=1))
