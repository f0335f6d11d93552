"""`RHN` behind `rhn.backend.Layer`, for the conformance suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from rhn.backend import State
from rhn.spec.layers import LayerConfig
from rhn.spec.masks import VariationalMasks
from rhn_tf.layer import RHN
from rhn_tf.weights import cell_to_spec, export_parameters, load_parameters


class TensorFlowLayer:
    """See `rhn.backend.Layer`: `RHN`, or one `keras.layers.Bidirectional` of it for each layer."""

    def __init__(self, config: LayerConfig, parameters: Mapping[str, NDArray], dtype: str, device: str) -> None:
        self.config = config
        self._dtype = dtype
        self._device = device
        with tf.device(device):
            if config.directions == "both":
                self._layers = [
                    keras.layers.Bidirectional(self._rhn(num_layers=1), dtype=dtype) for _ in range(config.num_layers)
                ]
            else:
                self._layers = [self._rhn(config.num_layers, go_backwards=config.directions == "reverse")]
            load_parameters(parameters, *self._layers)

    def forward(
        self,
        x: ArrayLike,
        state: State | None = None,
        lengths: ArrayLike | None = None,
        masks: VariationalMasks | None = None,
    ) -> tuple[NDArray, list[NDArray]]:
        with tf.device(self._device):
            outputs, new_state = self._outputs(*self._tensors(x, state, lengths, masks))
        return outputs.numpy(), [s.numpy() for s in new_state]

    def gradients(
        self,
        x: ArrayLike,
        d_outputs: ArrayLike,
        d_state: Sequence[ArrayLike],
        state: State | None = None,
        lengths: ArrayLike | None = None,
        masks: VariationalMasks | None = None,
    ) -> tuple[dict[str, NDArray], NDArray, list[NDArray]]:
        with tf.device(self._device):
            d_weights, d_x, d_initial = self._gradients(
                self._tensor(d_outputs), [self._tensor(d) for d in d_state], *self._tensors(x, state, lengths, masks)
            )
        named: dict[str, NDArray] = {}
        for cell, arrays in zip(self.config.cells(), d_weights, strict=True):
            named |= cell_to_spec([array.numpy() for array in arrays], cell.prefix, self.config.num_gates)
        return named, d_x.numpy(), [d.numpy() for d in d_initial]

    def parameters(self) -> dict[str, NDArray]:
        return export_parameters(*self._layers)

    def _rhn(self, num_layers: int, go_backwards: bool = False) -> RHN:
        config = self.config
        return RHN(
            config.hidden_size,
            config.recurrence_depth,
            num_layers,
            couple_gates=config.couple_gates,
            activation=config.activation,
            share_gate_masks=config.share_gate_masks,
            return_sequences=True,
            return_state=True,
            go_backwards=go_backwards,
            zero_output_for_mask=True,
            dtype=self._dtype,
        )

    def _outputs(
        self, x: tf.Tensor, state: list[tf.Tensor], mask: tf.Tensor | None, masks: VariationalMasks | None
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Outputs (B, T, D*H) and the last state of every cell (B, H)."""
        if self.config.directions != "both":
            outputs, *new_state = self._layers[0](x, initial_state=state, mask=mask, masks=masks)
            return tf.reverse(outputs, [1]) if self.config.directions == "reverse" else outputs, new_state
        new_state = []
        for number, layer in enumerate(self._layers):
            before = state[2 * number :][:2]
            if masks is None:
                x, *after = layer(x, initial_state=before, mask=mask)
            else:  # which Keras' wrapper does not pass on
                forward, reverse = (
                    direction(x, initial_state=[s], mask=mask, masks=_masks_of_cell(masks, 2 * number + i))
                    for i, (direction, s) in enumerate(
                        zip((layer.forward_layer, layer.backward_layer), before, strict=True)
                    )
                )
                x, after = tf.concat([forward[0], tf.reverse(reverse[0], [1])], axis=-1), [forward[1], reverse[1]]
            new_state += after
        return x, new_state

    def _gradients(
        self, d_outputs: tf.Tensor, d_state: list[tf.Tensor], x: tf.Tensor, state: list[tf.Tensor], *rest: Any
    ) -> tuple[list[list[tf.Tensor]], tf.Tensor, list[tf.Tensor]]:
        """Gradients of the parameters of each cell, of x and of the states."""
        parameters = [[variable.value for variable in cell.parameters] for cell in self._cells()]
        with tf.GradientTape() as tape:
            tape.watch([x, *state])
            outputs, new_state = self._outputs(x, state, *rest)
        return tape.gradient([outputs, *new_state], (parameters, x, state), [d_outputs, *d_state])

    def _cells(self) -> list[Any]:
        if self.config.directions != "both":
            return list(self._layers[0].cells)
        return [d.cells[0] for layer in self._layers for d in (layer.forward_layer, layer.backward_layer)]

    def _tensors(
        self, x: ArrayLike, state: State | None, lengths: ArrayLike | None, masks: VariationalMasks | None
    ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor | None, VariationalMasks | None]:
        """Input, states, and, if given, the mask (B, T) and the dropout masks."""
        sequences = self._tensor(x)  # (B, T, E)
        mask = None if lengths is None else tf.sequence_mask(lengths, sequences.shape[1])  # (B, T)
        if state is None:
            state = [np.zeros((len(sequences), self.config.hidden_size)) for _ in self.config.cells()]
        return sequences, [self._tensor(s) for s in state], mask, None if masks is None else masks.map(self._tensor)

    def _tensor(self, array: Any) -> tf.Tensor:
        return tf.constant(np.asarray(array), self._dtype)


def _masks_of_cell(masks: VariationalMasks, number: int) -> VariationalMasks:
    """The masks of one layer and direction, as masks of a single layer."""
    input_mask, state_mask, update_mask = ([] if mask is None else [mask] for mask in masks.of_layer(number))
    return VariationalMasks(input=input_mask or None, state=state_mask or None, update=update_mask or None)
