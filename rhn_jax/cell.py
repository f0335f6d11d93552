"""RHNCell: the parameters of one layer, and one time step."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from rhn.spec.arguments import check_choice, check_size
from rhn.spec.config import ACTIVATIONS
from rhn_jax.recurrence import masked_linear, time_step
from rhn_jax.weights import mask_tensors

Recurrence = Callable[..., Array]  # `fast_recurrence` or `plain_recurrence`


class RHNCell(nnx.RNNCellBase):
    """One time step of a Recurrent Highway Network layer: L micro-steps of coupled (or not) highway gates.

    Zilly et al., "Recurrent Highway Networks", arXiv 1607.03474. From the input x and the state s of the time step
    before, in each micro-step l = 0, ..., L-1, for every gate g in h, t and, if not coupled, c:

        z_g = (s * mask_g) @ R[l,g] + b[l,g]                         SPEC.md 2.2
              (+ (x * mask_g) @ W[g]  at the first micro-step)       SPEC.md 2.3
        h = activation(z_h)                                          equation 7, SPEC.md 2.4
        t = sigmoid(z_t)                                             equation 8, SPEC.md 2.4
        c = 1 - t, or sigmoid(z_c)                                   equation 9, SPEC.md 2.5, 2.6
        s = h * t + s * c                                            equation 6, SPEC.md 2.4

    Works inside `nnx.RNN` and `nnx.Bidirectional`. Inputs and carry are cast to the dtype of the parameters.

    Args:
        input_size: features E of the input.
        hidden_size: units H.
        recurrence_depth: micro-steps L per time step.
        couple_gates: the carry gate is 1 - t (G = 2 gates: h, t); otherwise it has weights of its own (G = 3: h, t, c).
        activation: of the candidate h; "tanh", "sigmoid" or "relu".
        init_scale: parameters start uniform in (-init_scale, init_scale), but for the transform bias.
        transform_bias: initial value of the transform gates' bias, which is learned.
        param_dtype: of the parameters.
        rngs: its stream `params` initialises the parameters.

    Attributes:
        input_weight: (E, G*H), one block of H columns per gate.
        recurrent_weights: L matrices (H, G*H).
        bias: (L, G*H).

    Raises:
        ValueError: a size is less than 1, or the activation is not known.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        recurrence_depth: int,
        *,
        couple_gates: bool = True,
        activation: str = "tanh",
        init_scale: float = 0.04,
        transform_bias: float = -2.0,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "recurrence_depth": recurrence_depth}
        for name, size in sizes.items():
            check_size(name, size)
        check_choice("activation", activation, ACTIVATIONS)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.recurrence_depth = recurrence_depth
        self.couple_gates = couple_gates
        self.activation = activation

        width = self.num_gates * hidden_size
        self.input_weight = uniform_param(rngs, (input_size, width), init_scale, param_dtype)
        self.recurrent_weights = nnx.List(
            uniform_param(rngs, (hidden_size, width), init_scale, param_dtype) for _ in range(recurrence_depth)
        )
        self.bias = uniform_param(rngs, (recurrence_depth, width), init_scale, param_dtype)
        self.bias[:, hidden_size : 2 * hidden_size] = transform_bias

    def __call__(
        self,
        carry: ArrayLike,
        inputs: ArrayLike,
        input_mask: ArrayLike | None = None,
        state_mask: ArrayLike | None = None,
    ) -> tuple[Array, Array]:
        """The state (..., H) after one time step, twice: as the new carry and as the output.

        Args:
            carry: (..., H), the state before.
            inputs: (..., E); all axes but the last are batch axes.
            input_mask: (M, ..., E) multiplies the inputs; M = 1 if the gates share it, else G.
            state_mask: (M, ..., H) multiplies what the gates see of the state, at every micro-step.
        """
        input_mask, state_mask = mask_tensors((input_mask, state_mask), like=self.bias[...])
        projected = self.project(inputs, input_mask)  # (..., G*H)
        weights = [weight[...] for weight in self.recurrent_weights]
        state = time_step(self._cast(carry), projected, weights, self.bias[...], state_mask, self.activation)
        return state, state  # (..., H) each

    def project(self, x: ArrayLike, mask: Array | None = None) -> Array:
        """What the input adds to the gates' arguments: (..., B, E) to (..., B, G*H), without bias."""
        return masked_linear(self._cast(x), self.input_weight[...], mask)

    def recur(
        self, recurrence: Recurrence, projected: Array, state: ArrayLike, state_mask: Array | None = None
    ) -> Array:
        """States (T, B, H) by `fast_recurrence` or `plain_recurrence`, with this cell's parameters."""
        weights = [weight[...] for weight in self.recurrent_weights]
        return recurrence(projected, self._cast(state), weights, self.bias[...], state_mask, activation=self.activation)

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: nnx.Initializer | None = None,
    ) -> Array:
        """The state (..., H) before the first time step, for inputs of shape (..., E): zeros, or by `carry_init`."""
        shape = (*input_shape[:-1], self.hidden_size)
        if carry_init is None:
            return jnp.zeros(shape, self.bias.dtype)
        if rngs is None:
            raise ValueError("carry_init is given without rngs: it needs them")
        key = rngs.carry() if isinstance(rngs, nnx.Rngs) else rngs()
        return carry_init(key, shape, self.bias.dtype)

    @property
    def num_gates(self) -> int:
        """G: 2 if the gates are coupled, else 3."""
        return 2 if self.couple_gates else 3

    @property
    def num_feature_axes(self) -> int:
        return 1

    def _cast(self, array: ArrayLike) -> Array:
        return jnp.asarray(array, self.bias.dtype)


def uniform_param(rngs: nnx.Rngs, shape: tuple[int, ...], scale: float, dtype: DTypeLike) -> nnx.Param[Array]:
    """A parameter that starts uniform in (-scale, scale)."""
    return nnx.Param(jax.random.uniform(rngs.params(), shape, dtype, -scale, scale))
