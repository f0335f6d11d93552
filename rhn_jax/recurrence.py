"""One RHN layer's recurrence over a window (Zilly et al., arXiv 1607.03474, equations 6 to 9).

Both functions take the input projection of all time steps and compute the same result. `fast_recurrence` has a
hand-written backward; `plain_recurrence` leaves it to JAX, and so has forward mode as well.

Shapes: T time, B batch, H hidden, L micro-steps, G gates (2: h, t with c = 1 - t; 3: h, t, c), M masks (1 or G).
B stands for any number of batch axes, none included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

_ACTIVATION: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "relu": jax.nn.relu,
}
# Derivative of each activation, as a function of its value h.
_ACTIVATION_SLOPE: dict[str, Callable[[Array], Array]] = {
    "tanh": lambda h: 1 - h * h,
    "sigmoid": lambda h: h * (1 - h),
    "relu": lambda h: (h > 0).astype(h.dtype),
}


def fast_recurrence(
    projected: Array,
    state: Array,
    recurrent_weights: Sequence[Array],
    biases: Array,
    state_mask: Array | None = None,
    activation: str = "tanh",
) -> Array:
    """States after every time step of a window, with a hand-written backward.

    The backward takes, per micro-step, one elementwise update and one matrix product, and after the last of them
    each weight's gradient as one matrix product over time and batch. It is itself differentiable in reverse mode.

    Args:
        projected: (T, B, G*H) masked input times input weight.
        state: (B, H) before the window.
        recurrent_weights: L matrices (H, G*H), one block of H columns per gate.
        biases: (L, G*H).
        state_mask: (M, B, H) constant over time and micro-steps, or None.
        activation: of the candidate h; "tanh", "sigmoid" or "relu".

    Returns:
        (T, B, H).

    Raises:
        TypeError: in forward mode (`jax.jvp`, `jax.jacfwd`, `jax.hessian`), which only `plain_recurrence` has.
    """
    return _fast_recurrence(activation, projected, state, tuple(recurrent_weights), biases, state_mask)


def plain_recurrence(
    projected: Array,
    state: Array,
    recurrent_weights: Sequence[Array],
    biases: Array,
    state_mask: Array | None = None,
    activation: str = "tanh",
) -> Array:
    """As `fast_recurrence`, differentiated by JAX: any order, any mode; slower."""
    outputs, _ = _forward(activation, projected, state, tuple(recurrent_weights), biases, state_mask)
    return outputs


def masked_linear(x: Array, blocks: Sequence[Array], mask: Array | None) -> Array:
    """(x * mask) @ weight, every gate with its own mask.

    Args:
        x: (..., B, features).
        blocks: the weight (features, G*H) as `mask_blocks` cuts it.
        mask: (M, B, features), M = 1 if the gates share it, else G; or None.

    Returns:
        (..., B, G*H).
    """
    if mask is None:
        return x @ blocks[0]
    return jnp.concatenate([(x * m) @ block for m, block in zip(mask, blocks, strict=True)], axis=-1)


def mask_blocks(weight: Array, mask: Array | None) -> list[Array]:
    """`weight` (features, G*H) cut into the columns that each mask is for; whole if there is but one, or none.

    Done once per window: XLA does not move the copies that it costs out of a loop.
    """
    return [weight] if mask is None else jnp.split(weight, len(mask), axis=1)


# ----------------------------------------------------------------------------------------------------------------------
# Forward and backward. `lax.scan` runs over time; the micro-steps are unrolled inside, so that every weight is an
# array of its own in the loop and none is sliced out of a stack at each step.
# ----------------------------------------------------------------------------------------------------------------------


class _MicroStep(NamedTuple):
    """What the backward needs of one micro-step, (B, H) each, (T, B, H) after the scan; c is None if coupled."""

    state_before: Array
    h: Array
    t: Array
    c: Array | None


def _forward(
    activation: str,
    projected: Array,
    state: Array,
    weights: tuple[Array, ...],
    biases: Array,
    state_mask: Array | None,
) -> tuple[Array, list[_MicroStep]]:
    """Outputs (T, B, H), and the micro-steps of every level."""
    num_gates = biases.shape[1] // state.shape[-1]
    blocks = [mask_blocks(weight, state_mask) for weight in weights]

    def time_step(s: Array, projected_now: Array) -> tuple[Array, tuple[Array, list[_MicroStep]]]:
        micro_steps = []
        for level in range(len(weights)):
            z = masked_linear(s, blocks[level], state_mask) + biases[level]  # (B, G*H)
            if level == 0:
                z = z + projected_now
            z_h, z_t, *z_c = jnp.split(z, num_gates, axis=-1)  # (B, H) each
            h = _ACTIVATION[activation](z_h)
            t = jax.nn.sigmoid(z_t)
            c = jax.nn.sigmoid(z_c[0]) if z_c else None
            micro_steps.append(_MicroStep(s, h, t, c))
            s = h * t + s * (1 - t if c is None else c)  # (B, H): the carried s is never masked
        return s, (s, micro_steps)

    _, (outputs, micro_steps) = lax.scan(time_step, state, projected)
    return outputs, micro_steps


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fast_recurrence(
    activation: str,
    projected: Array,
    state: Array,
    weights: tuple[Array, ...],
    biases: Array,
    state_mask: Array | None,
) -> Array:
    outputs, _ = _forward(activation, projected, state, weights, biases, state_mask)
    return outputs


class _Residuals(NamedTuple):
    """What the forward leaves to the backward."""

    weights: tuple[Array, ...]
    state_mask: Array | None
    micro_steps: list[_MicroStep]


def _fast_forward(
    activation: str,
    projected: Array,
    state: Array,
    weights: tuple[Array, ...],
    biases: Array,
    state_mask: Array | None,
) -> tuple[Array, _Residuals]:
    outputs, micro_steps = _forward(activation, projected, state, weights, biases, state_mask)
    return outputs, _Residuals(weights, state_mask, micro_steps)


def _fast_backward(
    activation: str, residuals: _Residuals, d_outputs: Array
) -> tuple[Array, Array, tuple[Array, ...], Array, Array | None]:
    """Gradients of projected, state, weights, biases and state_mask, given that of the outputs (T, B, H)."""
    weights, state_mask, micro_steps = residuals
    slope = _ACTIVATION_SLOPE[activation]
    blocks = [mask_blocks(weight, state_mask) for weight in weights]

    def time_step(
        carry: tuple[Array, Array | None], now: tuple[Array, list[_MicroStep]]
    ) -> tuple[tuple[Array, Array | None], list[Array]]:
        d_s, d_mask = carry  # (B, H), (M, B, H)
        d_output, micro_steps_now = now
        d_s = d_s + d_output
        d_z_of_level = []
        for level in reversed(range(len(weights))):
            s, h, t, c = micro_steps_now[level]
            if c is None:
                d_gates = [t * slope(h), (h - s) * t * (1 - t)]  # per gate (B, H), still without the factor d_s
            else:
                d_gates = [t * slope(h), h * t * (1 - t), s * c * (1 - c)]
            d_z = jnp.concatenate([d_s * d_gate for d_gate in d_gates], axis=-1)  # (B, G*H)
            d_z_of_level.append(d_z)
            d_s_masked, d_mask_now = _masked_linear_backward(d_z, s, blocks[level], state_mask)
            d_s = d_s * (1 - t if c is None else c) + d_s_masked
            d_mask = None if d_mask is None or d_mask_now is None else d_mask + d_mask_now
        return (d_s, d_mask), d_z_of_level[::-1]

    start = (jnp.zeros_like(d_outputs[0]), None if state_mask is None else jnp.zeros_like(state_mask))
    (d_state, d_mask), d_z_of_level = lax.scan(time_step, start, (d_outputs, micro_steps), reverse=True)
    d_weights = tuple(
        _weight_gradient(step.state_before, d_z, state_mask)
        for step, d_z in zip(micro_steps, d_z_of_level, strict=True)
    )
    d_biases = jnp.stack([d_z.reshape(-1, d_z.shape[-1]).sum(axis=0) for d_z in d_z_of_level])  # (L, G*H)
    return d_z_of_level[0], d_state, d_weights, d_biases, d_mask


_fast_recurrence.defvjp(_fast_forward, _fast_backward)


def _masked_linear_backward(
    d_z: Array, s: Array, blocks: Sequence[Array], mask: Array | None
) -> tuple[Array, Array | None]:
    """Gradients of s (B, H) and mask (M, B, H) in `masked_linear(s, blocks, mask)`, given that of its value.

    Where nobody asks for the mask's gradient, XLA removes it from the loop.
    """
    if mask is None:
        return d_z @ blocks[0].T, None
    parts = zip(jnp.split(d_z, len(mask), axis=-1), blocks, strict=True)
    d_masked = jnp.stack([d_z_part @ block.T for d_z_part, block in parts])  # (M, B, H)
    return (d_masked * mask).sum(axis=0), d_masked * s


def _weight_gradient(states: Array, d_z: Array, mask: Array | None) -> Array:
    """(H, G*H) gradient of one level's weight: a single product over time and batch for all gates with one mask.

    states (T, B, H) and d_z (T, B, G*H) are those of all time steps.
    """
    masks = [1] if mask is None else mask
    parts = zip(masks, jnp.split(d_z, len(masks), axis=-1), strict=True)
    time_and_batch = list(range(states.ndim - 1))
    return jnp.concatenate(
        [jnp.tensordot(states * m, d_z_part, axes=(time_and_batch, time_and_batch)) for m, d_z_part in parts], axis=1
    )
