"""RHNCell: the parameters of one layer, and one time step."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from rhn.spec.arguments import check_choice, check_size
from rhn.spec.config import ACTIVATIONS
from rhn_tf.precision import Precision
from rhn_tf.recurrence import masked_linear, time_step

_MATMUL_DTYPES = (None, "bfloat16", "float16")


@keras.saving.register_keras_serializable(package="rhn_tf")
class RHNCell(keras.layers.Layer):
    """One time step of a Recurrent Highway Network layer: L micro-steps of coupled (or not) highway gates.

    Zilly et al., "Recurrent Highway Networks", arXiv 1607.03474. Micro-step l computes, for the gates g = h, t and c,

        z_g = (s * mask_g) @ R[l,g] + b[l,g]                       SPEC.md 2.2
              (+ (x * mask_g) @ W[g]  at the first micro-step)     SPEC.md 2.3
        h = activation(z_h)                                        equation 7, SPEC.md 2.4
        t = sigmoid(z_t)                                           equation 8, SPEC.md 2.4
        c = 1 - t  if the gates are coupled, else  sigmoid(z_c)    equation 9, SPEC.md 2.5 and 2.6
        s = h * t + s * c                                          equation 6, SPEC.md 2.4

    Works inside `keras.layers.RNN`; `RHN` does the same faster.

    Args:
        units: H.
        recurrence_depth: micro-steps L per time step.
        couple_gates: the carry gate is 1 - t (G = 2 gates: h, t); otherwise it has weights of its own (G = 3: h, t, c).
        activation: of the candidate h; "tanh", "sigmoid" or "relu".
        init_scale: parameters start uniform in (-init_scale, init_scale), but for the transform bias.
        transform_bias: initial value of the transform gates' bias, which is learned.
        matmul_dtype: of the factors of matrix products, "bfloat16" or "float16"; everything else stays in the layer's
            own dtype, which is that of the factors too if this is None.
        kwargs: of `keras.layers.Layer`; `dtype` may be a policy such as "mixed_bfloat16".

    Attributes:
        input_weight: W (E, G*H), one block of H columns per gate, as Keras' `kernel`.
        recurrent_weights: R, L matrices (H, G*H).
        bias: b (L, G*H).
        precision: of the matrix products.

    Raises:
        ValueError: a size is less than 1, or the activation or matmul_dtype is not known.
    """

    def __init__(
        self,
        units: int,
        recurrence_depth: int,
        *,
        couple_gates: bool = True,
        activation: str = "tanh",
        init_scale: float = 0.04,
        transform_bias: float = -2.0,
        matmul_dtype: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, size in {"units": units, "recurrence_depth": recurrence_depth}.items():
            check_size(name, size)
        check_choice("activation", activation, ACTIVATIONS)
        check_choice("matmul_dtype", matmul_dtype, _MATMUL_DTYPES)
        self.units = units
        self.recurrence_depth = recurrence_depth
        self.couple_gates = couple_gates
        self.activation = activation
        self.init_scale = init_scale
        self.transform_bias = transform_bias
        self.matmul_dtype = matmul_dtype
        self.precision = Precision(matmul_dtype)
        self.state_size = units
        self.output_size = units

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the parameters for inputs (B, E)."""
        width = (2 if self.couple_gates else 3) * self.units
        self.input_weight = self.add_weight(
            shape=(input_shape[-1], width), initializer=self._uniform(), name="input_weight"
        )
        self.recurrent_weights = [
            self.add_weight(shape=(self.units, width), initializer=self._uniform(), name=f"recurrent_weight_{step}")
            for step in range(self.recurrence_depth)
        ]
        self.bias = self.add_weight(shape=(self.recurrence_depth, width), initializer=self._initial_bias, name="bias")

    def call(
        self,
        inputs: tf.Tensor,
        states: Any,
        input_mask: tf.Tensor | None = None,
        state_mask: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, Any]:
        """The state (B, H) after one time step, as output and in the structure of `states`.

        Args:
            inputs: (B, E).
            states: (B, H), the state before; or a list of only that.
            input_mask: (M, B, E) multiplies the inputs; M = 1 if the gates share it, else G.
            state_mask: (M, B, H) multiplies what the gates see of the state, at every micro-step.
        """
        state = states[0] if isinstance(states, list | tuple) else states  # (B, H)
        projected = self.project(inputs, input_mask)  # (B, G*H)
        output = time_step(
            state, projected, self.recurrent_weights, self.bias, state_mask, self.activation, self.precision
        )  # (B, H)
        return output, [output] if isinstance(states, list | tuple) else output

    def project(self, inputs: tf.Tensor, input_mask: tf.Tensor | None = None) -> tf.Tensor:
        """What the input adds to the gates: (..., B, E) to (..., B, G*H), without bias."""
        return masked_linear(inputs, self.input_weight, input_mask, self.precision)

    @property
    def parameters(self) -> list[keras.Variable]:
        """Input weight, recurrent weights, bias."""
        return [self.input_weight, *self.recurrent_weights, self.bias]

    def get_initial_state(self, batch_size: int | tf.Tensor) -> list[tf.Tensor]:
        """Zeros (B, H), in a list as `keras.layers.RNN` keeps them."""
        return [tf.zeros((batch_size, self.units), dtype=self.compute_dtype)]

    def get_config(self) -> dict[str, Any]:
        """Everything that `from_config` needs."""
        options = (
            *("units", "recurrence_depth", "couple_gates", "activation", "init_scale", "transform_bias"),
            "matmul_dtype",
        )
        return super().get_config() | {name: getattr(self, name) for name in options}

    def _uniform(self) -> keras.initializers.Initializer:
        """A new one for each weight: an initializer gives the same values whenever it is called."""
        return keras.initializers.RandomUniform(-self.init_scale, self.init_scale)

    def _initial_bias(self, shape: tuple[int, int], dtype: str) -> tf.Tensor:
        """(L, G*H)"""
        per_gate = [
            self._uniform()((shape[0], self.units), dtype) for _ in range(shape[1] // self.units)
        ]  # (L, H) each
        per_gate[1] = tf.fill((shape[0], self.units), tf.cast(self.transform_bias, dtype))
        return tf.concat(per_gate, axis=1)
