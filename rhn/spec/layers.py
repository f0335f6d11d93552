"""Layers outside of the language model (SPEC.md section 7), with sequences of different lengths and both directions.

The meaning of lengths is simple: every row of a batch is computed alone, cut to its own length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rhn.spec.arguments import check_choice, check_flag, check_size
from rhn.spec.config import ACTIVATIONS
from rhn.spec.masks import NO_MASKS, VariationalMasks
from rhn.spec.parameters import Parameters
from rhn.spec.reference import LayerWeights, MicroStep, layer_backward, layer_forward

DIRECTIONS = ("forward", "reverse", "both")


@dataclass(frozen=True)
class LayerConfig:
    """Architecture of RHN layers without embedding and softmax.

    Args:
        input_size: features E of the input, at least 1.
        hidden_size: units H of every layer and direction, at least 1.
        recurrence_depth: micro-steps L per time step, at least 1.
        num_layers: layers stacked on each other, at least 1.
        directions: "forward"; "reverse": from the last valid time step to the first; "both": bidirectional, each
            direction with its own weights.
        couple_gates: the carry gate is c = 1 - t; otherwise it has weights of its own.
        share_gate_masks: one dropout mask for all gates; otherwise one per gate.
        activation: nonlinearity of the candidate h, one of `rhn.spec.config.ACTIVATIONS`.

    Raises:
        ValueError: the value of an option is not accepted.
    """

    input_size: int
    hidden_size: int
    recurrence_depth: int = 5
    num_layers: int = 1
    directions: str = "forward"
    couple_gates: bool = True
    share_gate_masks: bool = True
    activation: str = "tanh"

    def __post_init__(self) -> None:
        for name in ("input_size", "hidden_size", "recurrence_depth", "num_layers"):
            object.__setattr__(self, name, check_size(name, getattr(self, name)))
        check_choice("directions", self.directions, DIRECTIONS)
        for name in ("couple_gates", "share_gate_masks"):
            check_flag(name, getattr(self, name))
        check_choice("activation", self.activation, ACTIVATIONS)

    @property
    def num_gates(self) -> int:
        """G: the number of gates."""
        return 2 if self.couple_gates else 3

    @property
    def num_gate_masks(self) -> int:
        """M: the length of the leading axis of input and state masks."""
        return 1 if self.share_gate_masks else self.num_gates

    @property
    def num_directions(self) -> int:
        """D: 2 if both directions are read, else 1."""
        return 2 if self.directions == "both" else 1

    @property
    def output_size(self) -> int:
        """D*H: the number of features of the outputs."""
        return self.num_directions * self.hidden_size

    def cells(self) -> Iterator[Cell]:
        """All cells in the order of states and masks: layer by layer, the forward direction first."""
        for layer in range(self.num_layers):
            input_size = self.input_size if layer == 0 else self.output_size
            if self.directions == "both":
                yield Cell(f"layers.{layer}", input_size, reverse=False)
                yield Cell(f"layers.{layer}.reverse", input_size, reverse=True)
            else:
                yield Cell(f"layers.{layer}", input_size, reverse=self.directions == "reverse")

    def to_dict(self) -> dict[str, Any]:
        """The options as plain values for JSON; `LayerConfig(**d)` is the inverse."""
        return asdict(self)


class Cell(NamedTuple):
    """One direction of one layer: the prefix of its tensors' names, the number of its input features, its direction."""

    prefix: str
    input_size: int
    reverse: bool


def layer_parameter_shapes(config: LayerConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor, in the canonical order.

    Each layer i has `layers.{i}.input_weight` (G, E_i, H), `layers.{i}.recurrent_weight` (L, G, H, H) and
    `layers.{i}.bias` (L, G, H). In a bidirectional layer, the tensors of the reverse direction are
    `layers.{i}.reverse.input_weight` and so on.
    """
    depth, gates, hidden = config.recurrence_depth, config.num_gates, config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {}
    for prefix, input_size, _ in config.cells():
        shapes[f"{prefix}.input_weight"] = (gates, input_size, hidden)
        shapes[f"{prefix}.recurrent_weight"] = (depth, gates, hidden, hidden)
        shapes[f"{prefix}.bias"] = (depth, gates, hidden)
    return shapes


def check_layer_parameters(config: LayerConfig, parameters: Mapping[str, ArrayLike]) -> None:
    """Raise ValueError unless `parameters` holds exactly the tensors of `config`, each of the right shape."""
    shapes = layer_parameter_shapes(config)
    missing = [name for name in shapes if name not in parameters]
    unknown = [name for name in parameters if name not in shapes]
    if missing or unknown:
        raise ValueError(
            f"parameters do not fit the layer: missing {', '.join(missing) or 'none'};"
            f" not expected {', '.join(unknown) or 'none'}"
        )
    for name, shape in shapes.items():
        if np.shape(parameters[name]) != shape:
            raise ValueError(
                f"parameter {name} of shape {np.shape(parameters[name])} is not accepted: expected shape {shape}"
            )


def layers_forward(
    config: LayerConfig,
    parameters: Mapping[str, NDArray],
    x: ArrayLike,
    state: Sequence[ArrayLike] | None = None,
    lengths: ArrayLike | None = None,
    masks: VariationalMasks | None = None,
) -> tuple[NDArray, list[NDArray]]:
    """Outputs (B, T, D*H) of the top layer, zero after the end of a sequence, and the last valid state of every cell.

    Args:
        config: the architecture.
        parameters: by the names of `layer_parameter_shapes`, real or complex.
        x: (B, T, E).
        state: states before the first time step, (B, H) per layer and direction; None is zero.
        lengths: (B,) number of valid time steps of each row, 0 to T; None is T.
        masks: `input` (M, B, E_i), `state` (M, B, H) and `update` (B, H), one per layer and direction; None drops
            nothing.
    """
    outputs, new_state, _ = _forward(config, parameters, x, state, lengths, masks)
    return outputs, new_state


class LayersGradients(NamedTuple):
    """Derivatives of a scalar with respect to the arguments of `layers_forward`."""

    parameters: Parameters
    x: NDArray
    state: list[NDArray]


def layers_gradients(
    config: LayerConfig,
    parameters: Mapping[str, NDArray],
    x: ArrayLike,
    d_outputs: ArrayLike,
    d_state: Sequence[ArrayLike],
    state: Sequence[ArrayLike] | None = None,
    lengths: ArrayLike | None = None,
    masks: VariationalMasks | None = None,
) -> LayersGradients:
    """Derivatives of `sum(outputs * d_outputs) + sum(last states * d_state)`.

    Args:
        config, parameters, x, state, lengths, masks: as in `layers_forward`.
        d_outputs: (B, T, D*H).
        d_state: (B, H) per layer and direction.
    """
    _, _, traces = _forward(config, parameters, x, state, lengths, masks)
    grads: Parameters = {}
    d_initial: list[NDArray] = []
    d_above = np.asarray(d_outputs, np.float64)  # (B, T, D*H)
    for layer in reversed(range(config.num_layers)):
        d_x = np.zeros(0)
        for direction in reversed(range(config.num_directions)):
            trace = traces[layer * config.num_directions + direction]
            columns = slice(direction * config.hidden_size, (direction + 1) * config.hidden_size)
            d_last = np.asarray(d_state[layer * config.num_directions + direction], np.float64)  # (B, H)
            d_weights, d_input, d_before = _cell_backward(config, trace, d_above[..., columns], d_last)
            for name, value in zip(LayerWeights._fields, d_weights, strict=True):
                grads[f"{trace.cell.prefix}.{_TENSORS[name]}"] = value
            d_initial.insert(0, d_before)
            d_x = d_input + d_x if d_x.size else d_input  # (B, T, E_i)
        d_above = d_x
    return LayersGradients({name: grads[name] for name in layer_parameter_shapes(config)}, d_above, d_initial)


# ---------------------------------------------------------------------------------------------------------------------
# One cell over the rows of a batch
# ---------------------------------------------------------------------------------------------------------------------

_TENSORS = {"input": "input_weight", "recurrent": "recurrent_weight", "bias": "bias"}


CellMasks = tuple[NDArray | None, NDArray | None, NDArray | None]  # of the input, of the state, of the update


class _Trace(NamedTuple):
    """What the backward needs of one cell: its weights, masks and input, and the micro-steps of every row."""

    cell: Cell
    weights: LayerWeights
    masks: CellMasks
    x: NDArray
    lengths: list[int]
    micro_steps: list[list[list[MicroStep]]]


def _forward(
    config: LayerConfig,
    parameters: Mapping[str, NDArray],
    x: ArrayLike,
    state: Sequence[ArrayLike] | None,
    lengths: ArrayLike | None,
    masks: VariationalMasks | None,
) -> tuple[NDArray, list[NDArray], list[_Trace]]:
    check_layer_parameters(config, parameters)
    p = {name: np.asarray(value, np.result_type(value, np.float64)) for name, value in parameters.items()}
    x = np.asarray(x, np.result_type(np.asarray(x), np.float64))  # (B, T, E)
    batch_size, length = x.shape[:2]
    row_lengths = [length] * batch_size if lengths is None else [int(n) for n in np.asarray(lengths)]
    masks = NO_MASKS if masks is None else masks

    new_state: list[NDArray] = []
    traces: list[_Trace] = []
    for layer in range(config.num_layers):
        outputs_of_layer = []
        for direction in range(config.num_directions):
            number = layer * config.num_directions + direction
            cell = list(config.cells())[number]
            weights = LayerWeights(*(p[f"{cell.prefix}.{name}"] for name in _TENSORS.values()))
            before = np.zeros((batch_size, config.hidden_size)) if state is None else np.asarray(state[number])
            outputs, last, trace = _cell_forward(config, cell, weights, x, before, row_lengths, masks.of_layer(number))
            outputs_of_layer.append(outputs)
            new_state.append(last)
            traces.append(trace)
        x = np.concatenate(outputs_of_layer, axis=-1)  # (B, T, D*H)
    return x, new_state, traces


def _cell_forward(
    config: LayerConfig,
    cell: Cell,
    weights: LayerWeights,
    x: NDArray,
    state: NDArray,
    lengths: list[int],
    masks: CellMasks,
) -> tuple[NDArray, NDArray, _Trace]:
    """Outputs (B, T, H) and last state (B, H), every row alone and cut to its length."""
    dtype = np.result_type(x, state, *weights)
    outputs = np.zeros((*x.shape[:2], config.hidden_size), dtype)  # (B, T, H)
    last = np.array(state, dtype)  # (B, H)
    micro_steps: list[list[list[MicroStep]]] = []
    for row, length in enumerate(lengths):
        if length == 0:
            micro_steps.append([])
            continue
        valid = _in_reading_order(x[row : row + 1, :length], cell)  # (1, length, E_i)
        input_mask, state_mask, update_mask = _masks_of_row(masks, row)
        row_outputs, trace = layer_forward(
            weights, valid, state[row : row + 1], input_mask, state_mask, config.activation, update_mask
        )  # (1, length, H)
        outputs[row, :length] = _in_reading_order(row_outputs, cell)[0]
        last[row] = row_outputs[0, -1]
        micro_steps.append(trace)
    return outputs, last, _Trace(cell, weights, masks, x, lengths, micro_steps)


def _cell_backward(
    config: LayerConfig, trace: _Trace, d_outputs: NDArray, d_last: NDArray
) -> tuple[LayerWeights, NDArray, NDArray]:
    """Gradients of the weights, of the input (B, T, E_i) and of the state before the first time step (B, H)."""
    d_weights = LayerWeights(*(np.zeros_like(w) for w in trace.weights))
    d_x = np.zeros_like(trace.x)  # (B, T, E_i)
    d_state = np.array(d_last)  # (B, H): without valid time steps, the last state is the first one
    for row, length in enumerate(trace.lengths):
        if length == 0:
            continue
        valid = _in_reading_order(trace.x[row : row + 1, :length], trace.cell)  # (1, length, E_i)
        d_valid = np.array(_in_reading_order(d_outputs[row : row + 1, :length], trace.cell))  # (1, length, H)
        d_valid[0, -1] += d_last[row]  # the last state is the last output
        input_mask, state_mask, update_mask = _masks_of_row(trace.masks, row)
        gradients = layer_backward(
            trace.weights,
            valid,
            trace.micro_steps[row],
            d_valid,
            input_mask,
            state_mask,
            config.activation,
            update_mask,
        )
        for total, part in zip(d_weights, gradients.weights, strict=True):
            total += part
        d_x[row, :length] = _in_reading_order(gradients.x, trace.cell)[0]
        d_state[row] = gradients.state[0]
    return d_weights, d_x, d_state


def _in_reading_order(sequence: NDArray, cell: Cell) -> NDArray:
    """(1, length, features) in the order in which the cell reads; applied to outputs, it restores the order of time."""
    return sequence[:, ::-1] if cell.reverse else sequence


def _masks_of_row(masks: CellMasks, row: int) -> CellMasks:
    """Input mask (M, 1, E_i), state mask (M, 1, H) and update mask (1, H)."""
    input_mask, state_mask, update_mask = masks
    return (
        None if input_mask is None else np.asarray(input_mask)[:, row : row + 1],
        None if state_mask is None else np.asarray(state_mask)[:, row : row + 1],
        None if update_mask is None else np.asarray(update_mask)[row : row + 1],
    )
