"""RHNCell: the parameters of one layer, and one time step."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell  # keras.layers.RNN resets the masks of such cells

from rhn.spec.arguments import check_choice, check_flag, check_fraction, check_number, check_size
from rhn.spec.config import ACTIVATIONS
from rhn_tf.precision import Precision
from rhn_tf.recurrence import masked_linear, time_step

_MATMUL_DTYPES = (None, "bfloat16", "float16")
_OF_KERAS = tuple(  # the arguments of `keras.layers.GRU` for each kind of weight
    f"{weight}_{kind}"
    for kind in ("initializer", "regularizer", "constraint")
    for weight in ("kernel", "recurrent", "bias")
)
OPTIONS = (
    *("units", "recurrence_depth", "couple_gates", "activation", "use_bias", "init_scale", "transform_bias"),
    *("drop_input", "drop_state", "drop_update", "share_gate_masks", "seed", "matmul_dtype", *_OF_KERAS),
)


@keras.saving.register_keras_serializable(package="rhn_tf")
class RHNCell(keras.layers.Layer, DropoutRNNCell):
    """One time step of a Recurrent Highway Network layer: L micro-steps with coupled or uncoupled gates.

    Zilly et al., "Recurrent Highway Networks", arXiv 1607.03474. A time step starts from the previous state s. Each
    micro-step l = 0, ..., L-1 computes, for every gate g in h, t and, if not coupled, c:

        z_g = (s * mask_g) @ R[l,g] + b[l,g]                       SPEC.md 2.2
              (+ (x * mask_g) @ W[g]  at the first micro-step)     SPEC.md 2.3
        h = activation(z_h)                                        equation 7, SPEC.md 2.4
        t = sigmoid(z_t)                                           equation 8, SPEC.md 2.4
        c = 1 - t  if the gates are coupled, else  sigmoid(z_c)    equation 9, SPEC.md 2.5 and 2.6
        s = h * t + s * c                                          equation 6, SPEC.md 2.4

    Works inside `keras.layers.RNN`. `RHN` computes the same faster.

    Args:
        units: number of units H.
        recurrence_depth: number of micro-steps L per time step.
        couple_gates: the carry gate is 1 - t (G = 2 gates: h, t); otherwise it has its own weights (G = 3: h, t, c).
        activation: nonlinearity of the candidate h: "tanh", "sigmoid" or "relu".
        use_bias: whether there are biases.
        init_scale: parameters start uniform in (-init_scale, init_scale), except for the transform bias.
        transform_bias: initial value of the transform gates' bias, which is learned.
        kernel_initializer, recurrent_initializer, bias_initializer: Keras initializers that replace `init_scale` for
            the input weight, each recurrent weight, and all biases except those of the transform gates.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: Keras regularizers.
        kernel_constraint, recurrent_constraint, bias_constraint: Keras constraints.
        drop_input, drop_state, drop_update: rates of variational dropout in training: of the input, of the state as
            the gates see it, and of the candidate h. There is one mask per sequence, constant over time and
            micro-steps. `dropout` and `recurrent_dropout` are Keras' names for the first two.
        share_gate_masks: one mask for all gates (M = 1); otherwise one per gate (M = G).
        seed: seed of these masks.
        matmul_dtype: dtype of the factors of matrix products, "bfloat16" or "float16"; None is the layer's own dtype.
            Everything else stays in the layer's own dtype.
        kwargs: arguments of `keras.layers.Layer`; `dtype` may be a policy such as "mixed_bfloat16".

    Attributes:
        input_weight: W (E, G*H), one block of H columns per gate, as Keras' `kernel`.
        recurrent_weights: R, L matrices (H, G*H).
        bias: b (L, G*H), or None.
        precision: precision of the matrix products.

    Raises:
        ValueError: an option has a value that is not accepted.
    """

    def __init__(
        self,
        units: int,
        recurrence_depth: int = 5,
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = check_size("units", units)
        self.recurrence_depth = check_size("recurrence_depth", recurrence_depth)
        for name, flag in {
            "couple_gates": couple_gates,
            "use_bias": use_bias,
            "share_gate_masks": share_gate_masks,
        }.items():
            check_flag(name, flag)
        check_choice("activation", activation, ACTIVATIONS)
        check_number("init_scale", init_scale, zero=True)
        check_choice("matmul_dtype", matmul_dtype, _MATMUL_DTYPES)
        self.couple_gates = couple_gates
        self.activation = activation
        self.use_bias = use_bias
        self.init_scale = init_scale
        self.transform_bias = transform_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = keras.regularizers.get(recurrent_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.recurrent_constraint = keras.constraints.get(recurrent_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.drop_input = _rate("drop_input", drop_input, "dropout", dropout)
        self.drop_state = _rate("drop_state", drop_state, "recurrent_dropout", recurrent_dropout)
        check_fraction("drop_update", drop_update)
        self.drop_update = drop_update
        self.share_gate_masks = share_gate_masks
        self.seed = seed
        if self.drop_input or self.drop_state or self.drop_update:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.matmul_dtype = matmul_dtype
        self.precision = Precision(matmul_dtype)
        self.num_gates = 2 if couple_gates else 3
        self.state_size = self.units
        self.output_size = self.units
        self._dropout_mask: tf.Tensor | None = None
        self._recurrent_dropout_mask: tf.Tensor | None = None
        self._update_mask: tf.Tensor | None = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the parameters for inputs (B, E)."""
        width = self.num_gates * self.units
        self.input_weight = self.add_weight(
            shape=(input_shape[-1], width),
            initializer=self._values(self.kernel_initializer, 0),
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="input_weight",
        )
        self.recurrent_weights = [
            self.add_weight(
                shape=(self.units, width),
                initializer=self._values(self.recurrent_initializer, step),
                regularizer=self.recurrent_regularizer,
                constraint=self.recurrent_constraint,
                name=f"recurrent_weight_{step}",
            )
            for step in range(self.recurrence_depth)
        ]
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.recurrence_depth, width),
                initializer=self._initial_bias,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    def call(
        self,
        inputs: tf.Tensor,
        states: Any,
        input_mask: tf.Tensor | None = None,
        state_mask: tf.Tensor | None = None,
        training: bool = False,
        update_mask: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, Any]:
        """The state (B, H) after one time step, as output and in the structure of `states`.

        Args:
            inputs: (B, E).
            states: (B, H), the state before; or a list of only that.
            input_mask: (M, B, E) multiplies the inputs; M = 1 if the gates share it, else G.
            state_mask: (M, B, H) multiplies what the gates see of the state, at every micro-step.
            training: whether to drop at the layer's rates where no mask is given. Drawn masks are kept until
                `reset_dropout_mask` and `reset_recurrent_dropout_mask`, which `keras.layers.RNN` calls.
            update_mask: (B, H) multiplies the candidate h, at every micro-step.
        """
        state = states[0] if isinstance(states, list | tuple) else states  # (B, H)
        if training and input_mask is None and state_mask is None and update_mask is None:
            input_mask, state_mask = self.get_dropout_mask(inputs), self.get_recurrent_dropout_mask(state)
            update_mask = self.get_update_mask(state)
        projected = self.project(inputs, input_mask)  # (B, G*H)
        options = self.activation, self.precision, update_mask
        output = time_step(state, projected, self.recurrent_weights, self.biases, state_mask, *options)  # (B, H)
        return output, [output] if isinstance(states, list | tuple) else output

    def project(self, inputs: tf.Tensor, input_mask: tf.Tensor | None = None) -> tf.Tensor:
        """What the input adds to the gates: (..., B, E) to (..., B, G*H), without bias."""
        return masked_linear(inputs, self.input_weight, input_mask, self.precision)

    @property
    def biases(self) -> tf.Tensor:
        """(L, G*H); zeros if there are none."""
        if self.bias is None:
            return tf.zeros((self.recurrence_depth, self.num_gates * self.units), self.compute_dtype)
        return self.bias

    @property
    def parameters(self) -> list[keras.Variable]:
        """Input weight, recurrent weights and, if there is one, bias."""
        return [self.input_weight, *self.recurrent_weights, *([] if self.bias is None else [self.bias])]

    @property
    def dropout(self) -> float:
        """Keras' name of `drop_input`."""
        return self.drop_input

    @property
    def recurrent_dropout(self) -> float:
        """Keras' name of `drop_state`."""
        return self.drop_state

    def draw_mask(self, rate: float, like: tf.Tensor) -> tf.Tensor | None:
        """(M, B, features) of 0 and 1/keep, for `like` (B, features); None for a rate of 0."""
        return self._draw(rate, like, 1 if self.share_gate_masks else self.num_gates)

    def draw_update_mask(self, like: tf.Tensor) -> tf.Tensor | None:
        """(B, H) of 0 and 1/keep, for a state `like` (B, H); None for a rate of 0."""
        mask = self._draw(self.drop_update, like, 1)  # (1, B, H)
        return None if mask is None else mask[0]

    def _draw(self, rate: float, like: tf.Tensor, num_masks: int) -> tf.Tensor | None:
        if not rate:
            return None
        shape = tf.concat([[num_masks], tf.shape(like)], axis=0)
        seed = tf.cast(tf.math.floormod(self.seed_generator.next(), tf.int32.max), tf.int32)  # as XLA wants it
        # Not keras.random.dropout: in a program of XLA for a CPU, its choice of algorithm takes ten times as long.
        uniform = tf.random.stateless_uniform(shape, seed, alg="philox")
        mask = tf.cast(uniform >= rate, self.compute_dtype) / (1 - rate)
        return tf.ensure_shape(mask, (num_masks, *like.shape))

    def get_dropout_mask(self, step_input: tf.Tensor) -> tf.Tensor | None:
        """The input mask (M, B, E) of this sequence, drawn where there is none yet."""
        if self._dropout_mask is None:
            self._dropout_mask = self.draw_mask(self.drop_input, step_input)
        return self._dropout_mask

    def get_recurrent_dropout_mask(self, step_input: tf.Tensor) -> tf.Tensor | None:
        """The state mask (M, B, H) of this sequence, drawn where there is none yet."""
        if self._recurrent_dropout_mask is None:
            self._recurrent_dropout_mask = self.draw_mask(self.drop_state, step_input)
        return self._recurrent_dropout_mask

    def get_update_mask(self, step_input: tf.Tensor) -> tf.Tensor | None:
        """The update mask (B, H) of this sequence, drawn where there is none yet."""
        if self._update_mask is None:
            self._update_mask = self.draw_update_mask(step_input)
        return self._update_mask

    def reset_recurrent_dropout_mask(self) -> None:
        """Forget the masks of the state and of the update; `keras.layers.RNN` calls it between sequences."""
        super().reset_recurrent_dropout_mask()
        self._update_mask = None

    def get_initial_state(self, batch_size: int | tf.Tensor) -> list[tf.Tensor]:
        """Zeros (B, H), in a list as `keras.layers.RNN` keeps them."""
        return [tf.zeros((batch_size, self.units), dtype=self.compute_dtype)]

    def get_config(self) -> dict[str, Any]:
        """Everything that `from_config` needs."""
        options = {name: getattr(self, name) for name in OPTIONS}
        options |= {name: keras.saving.serialize_keras_object(options[name]) for name in _OF_KERAS}
        return super().get_config() | options

    def _values(self, initializer: Any, step: int) -> Any:
        """The initializer of one micro-step's weight: `initializer`, or a uniform one with `init_scale`.

        Each weight needs a new one: an initializer gives the same values whenever it is called, and so do two
        initializers with the same seed.
        """
        if initializer is None:
            return keras.initializers.RandomUniform(-self.init_scale, self.init_scale)
        if not isinstance(initializer, keras.initializers.Initializer):
            return initializer  # a user's own function
        config = initializer.get_config()
        if isinstance(config.get("seed"), int):
            config["seed"] += step
        return type(initializer).from_config(config)

    def _initial_bias(self, shape: tuple[int, int], dtype: str) -> tf.Tensor:
        """(L, G*H)"""
        per_gate = [
            self._values(self.bias_initializer, gate)((shape[0], self.units), dtype) for gate in range(self.num_gates)
        ]  # (L, H) each
        per_gate[1] = tf.fill((shape[0], self.units), tf.cast(self.transform_bias, dtype))
        return tf.concat(per_gate, axis=1)


def _rate(name: str, rate: float, name_in_keras: str, rate_in_keras: float) -> float:
    """The rate, given by either name."""
    check_fraction(name, rate)
    check_fraction(name_in_keras, rate_in_keras)
    if rate and rate_in_keras:
        raise ValueError(
            f"{name_in_keras}={rate_in_keras} is not accepted with {name}={rate}: expected one of these two names"
        )
    return rate or rate_in_keras
