"""RHN: Recurrent Highway layers, stacked, over a window of time steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from rhn.spec.arguments import check_choice, check_size
from rhn.spec.masks import VariationalMasks
from rhn_tf.cell import RHNCell
from rhn_tf.fast_recurrence import fast_recurrence
from rhn_tf.recurrence import plain_recurrence
from rhn_tf.weights import mask_tensors

RECURRENCES: dict[str, Callable[..., tf.Tensor]] = {
    "fast": fast_recurrence,
    "plain": plain_recurrence,
    "recompute": partial(fast_recurrence, recompute=True),
}


@keras.saving.register_keras_serializable(package="rhn_tf")
class RHN(keras.layers.Layer):
    """Recurrent Highway Network over a sequence, used like `keras.layers.GRU`.

    Zilly et al., "Recurrent Highway Networks", arXiv 1607.03474. Padding masks (`mask_zero=True`) are not supported:
    put `RHNCell` into `keras.layers.RNN` for those.

    Args:
        units: H of every layer.
        recurrence_depth: micro-steps L per time step.
        num_layers: layers stacked on each other.
        couple_gates, activation, init_scale, transform_bias, matmul_dtype: see `RHNCell`.
        recurrence: "fast" has a hand-written backward; "plain" is slower and has derivatives of any order; "recompute"
            is "fast" in less memory: it keeps no gates for the backward, and computes them again there.
        return_sequences: give the state of the top layer after every time step, not only after the last.
        return_state: give the last state of every layer as well.
        stateful: start every call where the last one ended; needs a fixed batch size.
        kwargs: of `keras.layers.Layer`; `dtype` may be a policy such as "mixed_bfloat16".

    Attributes:
        cells: one `RHNCell` per layer, which holds the layer's parameters.
        states: of a stateful layer, per layer a variable (B, H); else None.

    Raises:
        ValueError: an option has a value that is not accepted.
    """

    def __init__(
        self,
        units: int,
        recurrence_depth: int,
        num_layers: int = 1,
        *,
        couple_gates: bool = True,
        activation: str = "tanh",
        init_scale: float = 0.04,
        transform_bias: float = -2.0,
        matmul_dtype: str | None = None,
        recurrence: str = "fast",
        return_sequences: bool = False,
        return_state: bool = False,
        stateful: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_size("num_layers", num_layers)
        check_choice("recurrence", recurrence, RECURRENCES)
        self.units = units
        self.recurrence_depth = recurrence_depth
        self.num_layers = num_layers
        self.couple_gates = couple_gates
        self.activation = activation
        self.init_scale = init_scale
        self.transform_bias = transform_bias
        self.matmul_dtype = matmul_dtype
        self.recurrence = recurrence
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.stateful = stateful
        self.states: list[keras.Variable] | None = None
        self.cells = [
            RHNCell(
                units,
                recurrence_depth,
                couple_gates=couple_gates,
                activation=activation,
                init_scale=init_scale,
                transform_bias=transform_bias,
                matmul_dtype=matmul_dtype,
                dtype=self.dtype_policy,
                name=f"cell_{layer}",
            )
            for layer in range(num_layers)
        ]

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
        masks: VariationalMasks | None = None,
    ) -> Any:
        """States of the top layer, and on request of every layer.

        Args:
            sequences: (B, T, E).
            initial_state: per layer (B, H), or that alone if there is one layer; None is zero, or what a stateful layer
                has kept.
            masks: variational dropout, of which `input` and `state` are used: per layer (M, B, E_i) and (M, B, H),
                M = 1 if the gates share a mask, else G. Tensors or NumPy arrays. None drops nothing.

        Returns:
            (B, T, H) if `return_sequences`, else (B, H). With `return_state` a tuple of that and per layer (B, H).

        Raises:
            ValueError: there is not one initial state per layer.
        """
        state = self._initial_state(initial_state, tf.shape(sequences)[0])  # per layer (B, H)
        masks = mask_tensors(masks, self.compute_dtype)
        recurrence = RECURRENCES[self.recurrence]

        x = tf.transpose(sequences, (1, 0, 2))  # (T, B, E)
        new_state = []
        for layer, cell in enumerate(self.cells):
            input_mask, state_mask = masks.of_layer(layer)  # (M, B, E_i), (M, B, H)
            x = recurrence(
                cell.project(x, input_mask),  # (T, B, G*H)
                state[layer],
                cell.recurrent_weights,
                cell.bias,
                state_mask,
                cell.activation,
                cell.precision,
            )  # (T, B, H)
            new_state.append(x[-1])  # (B, H)

        if self.states is not None:
            for variable, s in zip(self.states, new_state, strict=True):
                variable.assign(s)
        output = tf.transpose(x, (1, 0, 2)) if self.return_sequences else new_state[-1]
        return (output, *new_state) if self.return_state else output

    def reset_state(self) -> None:
        """Let a stateful layer start from zero again."""
        for variable in self.states or []:
            variable.assign(tf.zeros_like(variable))

    def get_config(self) -> dict[str, Any]:
        """Everything that `from_config` needs."""
        options = (
            *("units", "recurrence_depth", "num_layers", "couple_gates", "activation", "init_scale", "transform_bias"),
            *("matmul_dtype", "recurrence", "return_sequences", "return_state", "stateful"),
        )
        return super().get_config() | {name: getattr(self, name) for name in options}

    def _initial_state(self, given: Any, batch_size: tf.Tensor) -> list[tf.Tensor]:
        """Per layer (B, H)."""
        if given is None:
            if self.states is not None:
                return [tf.convert_to_tensor(variable) for variable in self.states]
            return [state for cell in self.cells for state in cell.get_initial_state(batch_size)]
        given = list(given) if isinstance(given, list | tuple) else [given]
        if len(given) != self.num_layers:
            raise ValueError(f"initial_state has {len(given)} entries, num_layers={self.num_layers} needs one each")
        return given
