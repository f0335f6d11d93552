"""RHN: Recurrent Highway layers, stacked, over a window of time steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import tensorflow as tf
from numpy.typing import NDArray

from rhn.spec.arguments import check_choice, check_flag, check_size
from rhn.spec.masks import VariationalMasks
from rhn_tf.cell import OPTIONS, RHNCell
from rhn_tf.fast_recurrence import fast_recurrence
from rhn_tf.recurrence import plain_recurrence
from rhn_tf.weights import check_masks, export_parameters, load_parameters, mask_tensors

RECURRENCES: dict[str, Callable[..., tf.Tensor]] = {
    "fast": fast_recurrence,
    "plain": plain_recurrence,
    "recompute": partial(fast_recurrence, recompute=True),
}
_FLAGS = ("return_sequences", "return_state", "go_backwards", "stateful", "unroll", "zero_output_for_mask")


@keras.saving.register_keras_serializable(package="rhn_tf")
class RHN(keras.layers.Layer):
    """Recurrent Highway Network over a sequence, used like `keras.layers.GRU`.

    Zilly et al., "Recurrent Highway Networks", arXiv 1607.03474. Works after `Masking` and `Embedding(mask_zero=True)`
    and within `Bidirectional` and `TimeDistributed`.

    Args:
        units: number of units H of every layer.
        recurrence_depth: number of micro-steps L per time step.
        num_layers: number of stacked layers.
        couple_gates, activation, use_bias, init_scale, transform_bias, matmul_dtype: see `RHNCell`.
        kernel_initializer and the other eight Keras arguments: see `RHNCell`.
        drop_input, drop_state, drop_update, dropout, recurrent_dropout, share_gate_masks, seed: see `RHNCell`. Each
            layer draws its own masks, newly for every call.
        recurrence: "fast" has a hand-written backward; "plain" is slower and has derivatives of any order; "recompute"
            is "fast" with less memory: it does not store the gates, and computes them again in the backward.
        return_sequences: return the state of the top layer after every time step, not only after the last.
        return_state: also return the last state of every layer.
        go_backwards: read the sequence from its end, and return the outputs in that order.
        stateful: start every call from the state after the previous call; needs a fixed batch size.
        unroll: build a program without a loop, differentiated by TensorFlow; needs a fixed number of time steps.
        zero_output_for_mask: outputs of masked time steps are 0; otherwise they repeat the previous output.
        kwargs: arguments of `keras.layers.Layer`; `dtype` may be a policy such as "mixed_bfloat16".

    Attributes:
        cells: one `RHNCell` per layer, which holds the layer's parameters.
        states: for a stateful `RHN`, one variable (B, H) per layer; else None.

    Raises:
        ValueError: an option has a value that is not accepted.
    """

    def __init__(
        self,
        units: int,
        recurrence_depth: int = 5,
        num_layers: int = 1,
        *,
        couple_gates: bool = True,
        activation: str = "tanh",
        use_bias: bool = True,
        init_scale: float = 0.04,
        transform_bias: float = -2.0,
        kernel_initializer: Any = None,
        recurrent_initializer: Any = None,
        bias_initializer: Any = None,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        drop_input: float = 0.0,
        drop_state: float = 0.0,
        drop_update: float = 0.0,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        share_gate_masks: bool = True,
        seed: int | None = None,
        matmul_dtype: str | None = None,
        recurrence: str = "fast",
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_layers = check_size("num_layers", num_layers)
        check_choice("recurrence", recurrence, RECURRENCES)
        self.recurrence = recurrence
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.stateful = stateful
        self.unroll = unroll
        self.zero_output_for_mask = zero_output_for_mask
        for name in _FLAGS:
            check_flag(name, getattr(self, name))
        self.states: list[keras.Variable] | None = None
        self.cells = [
            RHNCell(
                units,
                recurrence_depth,
                couple_gates=couple_gates,
                activation=activation,
                use_bias=use_bias,
                init_scale=init_scale,
                transform_bias=transform_bias,
                kernel_initializer=kernel_initializer,
                recurrent_initializer=recurrent_initializer,
                bias_initializer=bias_initializer,
                kernel_regularizer=kernel_regularizer,
                recurrent_regularizer=recurrent_regularizer,
                bias_regularizer=bias_regularizer,
                kernel_constraint=kernel_constraint,
                recurrent_constraint=recurrent_constraint,
                bias_constraint=bias_constraint,
                drop_input=drop_input,
                drop_state=drop_state,
                drop_update=drop_update,
                dropout=dropout,
                recurrent_dropout=recurrent_dropout,
                share_gate_masks=share_gate_masks,
                seed=None if seed is None else seed + layer,
                matmul_dtype=matmul_dtype,
                dtype=self.dtype_policy,
                name=f"cell_{layer}",
            )
            for layer in range(num_layers)
        ]
        for name in OPTIONS:  # the layer has them as attributes, as `keras.layers.GRU` has the attributes of its cell
            setattr(self, name, getattr(self.cells[0], name))
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def build(self, sequences_shape: tuple[int | None, ...]) -> None:
        """Make the parameters for sequences (B, T, E)."""
        batch_size, _, features = sequences_shape
        for cell in self.cells:
            cell.build((batch_size, features))
            features = self.units
        if self.stateful:
            if batch_size is None:
                raise ValueError("stateful=True is not accepted with a batch size of None: expected a fixed one")
            self.states = [
                self.add_weight(
                    shape=(batch_size, self.units), initializer="zeros", trainable=False, name=f"state_{layer}"
                )
                for layer in range(self.num_layers)
            ]

    def call(
        self,
        sequences: tf.Tensor,
        initial_state: Sequence[tf.Tensor] | tf.Tensor | None = None,
        mask: tf.Tensor | None = None,
        training: bool = False,
        masks: VariationalMasks | None = None,
    ) -> Any:
        """States of the top layer, and on request of every layer.

        Args:
            sequences: (B, T, E).
            initial_state: per layer (B, H); a single tensor for one layer; None is zero, or the state that a stateful
                layer has kept.
            mask: (B, T) truth values; a time step where it is False is skipped: the state is held, and nothing depends
                on its input (SPEC.md 7.2). None: no time step is skipped.
            training: whether to draw dropout masks, at the layer's rates.
            masks: masks of variational dropout, which replace the masks that `training` would draw; `input`, `state`
                and `update` are used: per layer (M, B, E_i), (M, B, H) and (B, H), M = 1 if the gates share a mask,
                else G. Tensors or NumPy arrays. A layer that reads forwards also takes `input` per time step,
                (M, B, T, E_i).

        Returns:
            (B, T, H) if `return_sequences`, else (B, H). With `return_state` a tuple of it and, per layer, (B, H).

        Raises:
            ValueError: states or masks do not fit the layer, or there is no time step.
        """
        batch_size, length, _ = sequences.shape
        if length == 0:
            raise ValueError(f"sequences of shape {tuple(sequences.shape)} are not accepted: expected a time step")
        if length is None and self.unroll:
            raise ValueError("unroll=True is not accepted with an unknown number of time steps: expected a fixed one")
        state = self._initial_state(initial_state, sequences)  # per layer (B, H)
        given_masks = mask_tensors(masks, self.compute_dtype)
        check_masks(given_masks, self.cells, batch_size, () if self.go_backwards else (length,))

        x = tf.transpose(tf.cast(sequences, self.compute_dtype), (1, 0, 2))  # (T, B, E)
        valid = None if mask is None else tf.transpose(tf.cast(mask, tf.bool))[:, :, tf.newaxis]  # (T, B, 1)
        if valid is not None:
            x = tf.where(valid, x, tf.zeros_like(x))  # so that not even a NaN in the padding has an effect
        if self.go_backwards:
            x, valid = tf.reverse(x, [0]), None if valid is None else tf.reverse(valid, [0])
        recurrence = partial(plain_recurrence, unroll=True) if self.unroll else RECURRENCES[self.recurrence]
        new_state = []
        for layer, (cell, s) in enumerate(zip(self.cells, state, strict=True)):
            input_mask, state_mask, update_mask = given_masks.of_layer(layer)  # (M, B, E_i), (M, B, H), (B, H)
            if input_mask is not None and input_mask.shape.rank == 4:
                input_mask = tf.transpose(input_mask, (0, 2, 1, 3))  # (M, T, B, E_i)
            if training and masks is None:
                input_mask, state_mask = cell.draw_mask(cell.drop_input, x[0]), cell.draw_mask(cell.drop_state, s)
                update_mask = cell.draw_update_mask(s)
            x = recurrence(
                cell.project(x, input_mask),  # (T, B, G*H)
                s,
                cell.recurrent_weights,
                cell.biases,
                state_mask,
                cell.activation,
                cell.precision,
                valid,
                update_mask,
            )  # (T, B, H)
            new_state.append(x[-1])  # (B, H)
        if valid is not None:  # before the first valid time step there is no output to repeat
            has_output = valid if self.zero_output_for_mask else tf.cumsum(tf.cast(valid, tf.int32)) > 0  # (T, B, 1)
            x = tf.where(has_output, x, tf.zeros_like(x))

        if self.states is not None:
            for variable, s in zip(self.states, new_state, strict=True):
                variable.assign(s)
        output = tf.transpose(x, (1, 0, 2)) if self.return_sequences else x[-1]
        return (output, *new_state) if self.return_state else output

    def compute_output_shape(
        self, sequences_shape: tuple[int | None, ...], initial_state_shape: Any = None
    ) -> tuple[Any, ...]:
        """Shapes of what `call` returns."""
        batch_size, length, _ = sequences_shape
        output = (batch_size, length, self.units) if self.return_sequences else (batch_size, self.units)
        return (output, *[(batch_size, self.units)] * self.num_layers) if self.return_state else output

    def compute_mask(self, inputs: Any, mask: Any) -> Any:
        """The mask of the outputs, for the layer above; there is one only where there are outputs over time."""
        of_outputs = mask if self.return_sequences else None
        return [of_outputs, *[None] * self.num_layers] if self.return_state else of_outputs

    def reset_state(self) -> None:
        """Let a stateful layer start from zero again."""
        for variable in self.states or []:
            variable.assign(tf.zeros_like(variable))

    def export_parameters(self) -> dict[str, NDArray]:
        """Copies of the parameters, by the names and in the shapes of `rhn.spec.layers`; see `rhn_tf.weights`."""
        return export_parameters(self)

    def load_parameters(self, parameters: Mapping[str, NDArray]) -> None:
        """Load copies of the tensors of `rhn.spec.layers`; a layer that is not built yet is built.

        Raises:
            ValueError: they do not fit the layer.
        """
        load_parameters(parameters, self)

    def get_config(self) -> dict[str, Any]:
        """Everything that `from_config` needs."""
        of_cell = self.cells[0].get_config()
        own = {name: getattr(self, name) for name in ("num_layers", "recurrence", *_FLAGS)}
        return super().get_config() | {name: of_cell[name] for name in OPTIONS} | own

    def _initial_state(self, given: Any, sequences: tf.Tensor) -> list[tf.Tensor]:
        """Per layer (B, H)."""
        if given is None:
            if self.states is not None:
                return [tf.convert_to_tensor(variable) for variable in self.states]
            return [state for cell in self.cells for state in cell.get_initial_state(tf.shape(sequences)[0])]
        given = list(given) if isinstance(given, list | tuple) else [given]
        given = [tf.cast(state, self.compute_dtype) for state in given]
        expected = [(sequences.shape[0], self.units)] * self.num_layers
        if len(given) != len(expected) or not all(
            state.shape.is_compatible_with(shape) for state, shape in zip(given, expected, strict=True)
        ):
            raise ValueError(
                f"initial_state of shapes {[tuple(state.shape) for state in given]} is not accepted: expected one per"
                f" layer, {expected}"
            )
        return given
