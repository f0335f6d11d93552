"""RHN: Recurrent Highway layers, stacked, over a window of time steps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from rhn.spec.arguments import check_choice, check_size
from rhn.spec.masks import NO_MASKS, VariationalMasks
from rhn_jax.cell import Recurrence, RHNCell
from rhn_jax.fast_recurrence import fast_recurrence
from rhn_jax.recurrence import plain_recurrence
from rhn_jax.weights import mask_tensors

RECURRENCES: dict[str, Recurrence] = {
    "fast": fast_recurrence,
    "plain": plain_recurrence,
    "recompute": partial(fast_recurrence, recompute=True),
}


class RHN(nnx.Module):
    """Recurrent Highway Network over a sequence; carry first, in the call and in the result, as in Flax's cells.

    Zilly et al., "Recurrent Highway Networks", arXiv 1607.03474. `with jax.default_matmul_precision(...)` sets the
    precision of its matrix products, those of the derivative included; a CPU keeps to full precision whatever is asked.

    Args:
        input_size: features E of the input of the first layer.
        hidden_size: units H of every layer.
        recurrence_depth: micro-steps L per time step.
        num_layers: layers stacked on each other.
        time_major: input and output are (T, B, features) instead of (B, T, features), as in `nnx.RNN`.
        couple_gates, activation, init_scale, transform_bias, param_dtype, rngs: see `RHNCell`.
        recurrence: "fast" has a hand-written backward; "plain" is slower and has forward mode too; "recompute" is
            "fast" in less memory: it keeps no gates for the backward, and computes them again there.

    Attributes:
        cells: one `RHNCell` per layer, which holds the layer's parameters.

    Raises:
        ValueError: an option has a value that is not accepted.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        recurrence_depth: int,
        num_layers: int = 1,
        *,
        time_major: bool = False,
        couple_gates: bool = True,
        activation: str = "tanh",
        init_scale: float = 0.04,
        transform_bias: float = -2.0,
        recurrence: str = "fast",
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_size("num_layers", num_layers)
        check_choice("recurrence", recurrence, RECURRENCES)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.recurrence_depth = recurrence_depth
        self.num_layers = num_layers
        self.time_major = time_major
        self.recurrence = recurrence
        options: dict[str, Any] = {
            "couple_gates": couple_gates,
            "activation": activation,
            "init_scale": init_scale,
            "transform_bias": transform_bias,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        self.cells = nnx.List(
            RHNCell(input_size if layer == 0 else hidden_size, hidden_size, recurrence_depth, **options)
            for layer in range(num_layers)
        )

    def __call__(
        self, carry: Sequence[ArrayLike] | None, x: ArrayLike, masks: VariationalMasks | None = None
    ) -> tuple[list[Array], Array]:
        """State of every layer after the window, and states of the top layer after every time step.

        Args:
            carry: per layer (B, H) before the window; None is zero.
            x: (B, T, E), or (T, B, E) if `time_major`; or one sequence (T, E), for which B is left out everywhere.
            masks: variational dropout, of which `input` and `state` are used: per layer (M, B, E_i) and (M, B, H),
                M = 1 if the gates share a mask, else G. None drops nothing.

        Returns:
            carry: per layer (B, H).
            outputs: (B, T, H), or (T, B, H).

        Raises:
            ValueError: x or carry has another shape.
        """
        x = jnp.asarray(x)
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            raise ValueError(
                f"x of shape {x.shape} is not accepted: expected 2 or 3 axes with a last axis of {self.input_size}"
            )
        batch_first = x.ndim == 3 and not self.time_major
        if batch_first:
            x = x.swapaxes(0, 1)  # (T, B, E)
        carry = self.initialize_carry(x.shape[1:]) if carry is None else carry
        state_shape = (*x.shape[1:-1], self.hidden_size)
        shapes, expected = [jnp.shape(state) for state in carry], [state_shape] * self.num_layers
        if shapes != expected:
            raise ValueError(f"carry of shapes {shapes} is not accepted: expected one array per layer, {expected}")
        masks = mask_tensors(NO_MASKS if masks is None else masks, like=self.cells[0].bias[...])

        new_carry = []
        for layer, (cell, state) in enumerate(zip(self.cells, carry, strict=True)):
            input_mask, state_mask = masks.of_layer(layer)  # (M, B, E_i), (M, B, H)
            projected = cell.project(x, input_mask)  # (T, B, G*H)
            x = cell.recur(RECURRENCES[self.recurrence], projected, state, state_mask)  # (T, B, H)
            new_carry.append(x[-1])
        return new_carry, x.swapaxes(0, 1) if batch_first else x

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: nnx.Initializer | None = None,
    ) -> list[Array]:
        """The state before the first time step, per layer (..., H), for one step's inputs of shape (..., E)."""
        return [cell.initialize_carry(input_shape, rngs, carry_init) for cell in self.cells]
