"""RHNCell: the parameters of one layer, and one time step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from rhn.spec.arguments import check_choice, check_flag, check_number, check_size
from rhn.spec.config import ACTIVATIONS
from rhn_jax.recurrence import masked_linear, time_step
from rhn_jax.weights import mask_tensors

Recurrence = Callable[..., Array]  # `fast_recurrence` or `plain_recurrence`
NOTHING: Mapping[str, Any] = MappingProxyType({})


class RHNCell(nnx.RNNCellBase):
    """One time step of a Recurrent Highway Network layer: L micro-steps with coupled or uncoupled gates.

    Zilly et al., "Recurrent Highway Networks", arXiv 1607.03474. A time step starts from the previous state s. Each
    micro-step l = 0, ..., L-1 computes, for every gate g in h, t and, if not coupled, c:

        z_g = (s * mask_g) @ R[l,g] + b[l,g]                         SPEC.md 2.2
              (+ (x * mask_g) @ W[g]  at the first micro-step)       SPEC.md 2.3
        h = activation(z_h)                                          equation 7, SPEC.md 2.4
        t = sigmoid(z_t)                                             equation 8, SPEC.md 2.4
        c = 1 - t, or sigmoid(z_c)                                   equation 9, SPEC.md 2.5, 2.6
        s = h * t + s * c                                            equation 6, SPEC.md 2.4

    Works inside `nnx.RNN` and `nnx.Bidirectional`.

    Args:
        input_size: number of input features E.
        hidden_size: number of units H.
        recurrence_depth: number of micro-steps L per time step.
        couple_gates: the carry gate is 1 - t (G = 2 gates: h, t); otherwise it has its own weights (G = 3: h, t, c).
        activation: nonlinearity of the candidate h: "tanh", "sigmoid" or "relu".
        init_scale: parameters start uniform in (-init_scale, init_scale), except for the transform bias.
        transform_bias: initial value of the transform gates' bias, which is learned.
        kernel_init, recurrent_kernel_init, bias_init: initialisers, as in Flax's cells, that replace the uniform ones:
            for `input_weight`, each of `recurrent_weights`, and `bias` except for the transform gates.
        carry_init: initialiser of the carry; None is zeros.
        dtype: dtype of the computation, of outputs and of the carry; None is `param_dtype`.
        param_dtype: dtype of the parameters.
        promote_dtype: converts a tuple of arrays to `dtype`, as in Flax's cells.
        kernel_metadata, recurrent_kernel_metadata, bias_metadata: metadata of the parameters, such as names for
            sharding.
        rngs: its stream `params` initialises the parameters.

    Attributes:
        input_weight: (E, G*H), one block of H columns per gate.
        recurrent_weights: L matrices (H, G*H).
        bias: (L, G*H).

    Raises:
        ValueError: a size is less than 1, init_scale is less than 0, or the activation is not known.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        recurrence_depth: int = 5,
        *,
        couple_gates: bool = True,
        activation: str = "tanh",
        init_scale: float = 0.04,
        transform_bias: float = -2.0,
        kernel_init: nnx.Initializer | None = None,
        recurrent_kernel_init: nnx.Initializer | None = None,
        bias_init: nnx.Initializer | None = None,
        carry_init: nnx.Initializer | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        promote_dtype: Callable[..., Any] = promote_dtype,
        kernel_metadata: Mapping[str, Any] = NOTHING,
        recurrent_kernel_metadata: Mapping[str, Any] = NOTHING,
        bias_metadata: Mapping[str, Any] = NOTHING,
        rngs: nnx.Rngs,
    ) -> None:
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "recurrence_depth": recurrence_depth}
        for name, size in sizes.items():
            check_size(name, size)
        check_flag("couple_gates", couple_gates)
        check_choice("activation", activation, ACTIVATIONS)
        check_number("init_scale", init_scale, zero=True)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.recurrence_depth = recurrence_depth
        self.couple_gates = couple_gates
        self.activation = activation
        self.carry_init = carry_init
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.promote_dtype = promote_dtype

        def parameter(
            shape: tuple[int, ...], initializer: nnx.Initializer | None, metadata: Mapping[str, Any]
        ) -> nnx.Param[Array]:
            initializer = uniform(init_scale) if initializer is None else initializer
            return nnx.Param(initializer(rngs.params(), shape, param_dtype), **metadata)

        width = self.num_gates * hidden_size
        self.input_weight = parameter((input_size, width), kernel_init, kernel_metadata)
        self.recurrent_weights = nnx.List(
            parameter((hidden_size, width), recurrent_kernel_init, recurrent_kernel_metadata)
            for _ in range(recurrence_depth)
        )
        self.bias = parameter((recurrence_depth, width), bias_init, bias_metadata)
        is_transform = jnp.arange(width) // hidden_size == 1  # (G*H,)
        self.bias.set_value(jnp.where(is_transform, transform_bias, self.bias[...]))

    def __call__(
        self,
        carry: ArrayLike,
        inputs: ArrayLike,
        input_mask: ArrayLike | None = None,
        state_mask: ArrayLike | None = None,
        update_mask: ArrayLike | None = None,
    ) -> tuple[Array, Array]:
        """The state (..., H) after one time step, twice: as the new carry and as the output.

        Args:
            carry: (..., H), the state before.
            inputs: (..., E); all axes but the last are batch axes.
            input_mask: (M, ..., E) multiplies the inputs; M = 1 if the gates share it, else G.
            state_mask: (M, ..., H) multiplies what the gates see of the state, at every micro-step.
            update_mask: (..., H) multiplies the candidate h, at every micro-step.
        """
        carry = self.promote(carry)
        input_mask, state_mask, update_mask = mask_tensors((input_mask, state_mask, update_mask), like=carry)
        projected = self.project(inputs, input_mask)  # (..., G*H)
        state = time_step(carry, projected, *self._recurrent_parameters(), state_mask, self.activation, update_mask)
        return state, state  # (..., H) each

    def project(self, x: ArrayLike, mask: Array | None = None) -> Array:
        """What the input adds to the gates' arguments: (..., B, E) to (..., B, G*H), without bias."""
        return masked_linear(self.promote(x), self.promote(self.input_weight[...]), mask)

    def recur(
        self,
        recurrence: Recurrence,
        projected: Array,
        state: Array,
        state_mask: Array | None = None,
        valid: Array | None = None,
        update_mask: Array | None = None,
    ) -> Array:
        """States (T, B, H) by `fast_recurrence` or `plain_recurrence`, with this cell's parameters."""
        masks = state_mask, self.activation, valid, update_mask
        return recurrence(projected, state, *self._recurrent_parameters(), *masks)

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: nnx.Initializer | None = None,
    ) -> Array:
        """The state (..., H) before the first time step, for inputs of shape (..., E): zeros, or by `carry_init`.

        Raises:
            ValueError: there is an initialiser, and no `rngs` to draw with.
        """
        shape = (*input_shape[:-1], self.hidden_size)
        carry_init = self.carry_init if carry_init is None else carry_init
        if carry_init is None:
            return jnp.zeros(shape, self.compute_dtype)
        if rngs is None:
            raise ValueError("carry_init is given without rngs: it needs them")
        key = rngs.carry() if isinstance(rngs, nnx.Rngs) else rngs()
        return carry_init(key, shape, self.compute_dtype)

    def _recurrent_parameters(self) -> tuple[list[Array], Array]:
        """L matrices (H, G*H), and biases (L, G*H)."""
        return [self.promote(weight[...]) for weight in self.recurrent_weights], self.promote(self.bias[...])

    def promote(self, array: ArrayLike) -> Array:
        """`array` in the dtype of the computation."""
        (promoted,) = self.promote_dtype((array,), dtype=self.compute_dtype)
        return promoted

    @property
    def compute_dtype(self) -> DTypeLike:
        """The dtype of the computation: `dtype`, or the dtype of the parameters."""
        return self.bias.dtype if self.dtype is None else self.dtype

    @property
    def num_gates(self) -> int:
        """G: 2 if the gates are coupled, else 3."""
        return 2 if self.couple_gates else 3

    @property
    def num_feature_axes(self) -> int:
        return 1


def uniform(scale: float) -> nnx.Initializer:
    """An initialiser: uniform in (-scale, scale)."""
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -scale, scale)
