"""The same results as recurrence.py, with a hand-written backward; read recurrence.py first.

The backward needs one elementwise update and one matrix product per micro-step. After the loop, the gradient of each
weight is one matrix product over time and batch. Long windows are processed in slices of time.

`lax.scan` runs over time, and the micro-steps are unrolled inside. So every weight is a separate array in the loop, and
none is sliced out of a stack at each step. Shapes: see recurrence.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from rhn.port_tools import steps_per_slice
from rhn_jax.recurrence import ACTIVATION, Activation

# Derivative of each activation, as a function of its value h.
_ACTIVATION_SLOPE: dict[str, Activation] = {
    "tanh": lambda h: 1 - h * h,
    "sigmoid": lambda h: h * (1 - h),
    "relu": lambda h: (h > 0).astype(h.dtype),
}

# Rows (time x batch) that the backward treats at a time, at least. Enough to keep the weight gradients' matrix products
# efficient; few enough that its buffers stay small beside what the forward saved.
_SLICE_ROWS = 512
# On a CPU, XLA multiplies faster by a large matrix that is stored transposed. From so many rows on it pays off.
_ROWS_WORTH_A_TRANSPOSE = 100


def fast_recurrence(
    projected: Array,
    state: Array,
    recurrent_weights: Sequence[Array],
    biases: Array,
    state_mask: Array | None = None,
    activation: str = "tanh",
    valid: Array | None = None,
    update_mask: Array | None = None,
    recompute: bool = False,
) -> Array:
    """Like `plain_recurrence`, but with a hand-written backward, which is itself differentiable in reverse mode.

    Args:
        projected, state, recurrent_weights, biases, state_mask, activation, valid, update_mask: see `plain_recurrence`.
        recompute: for the backward, keep `projected` and the states but not the gates, and compute the gates again,
            with one matrix product per micro-step. The result is exact. It takes a little more time, and less memory if
            there are several slices.

    Returns:
        (T, B, H).

    Raises:
        TypeError: in forward mode (`jax.jvp`, `jax.jacfwd`), which only `plain_recurrence` has. `jax.hessian` works: it
            is forward mode over the hand-written backward.
    """
    inputs = _Inputs(projected, state, tuple(recurrent_weights), biases, state_mask, valid, update_mask)
    time, *batch = projected.shape[:-1]
    length = steps_per_slice(time, math.prod(batch), _SLICE_ROWS) if _has_fixed_sizes(projected) else time
    if length == time:
        with _reverse_mode_only():
            return _fast_recurrence(activation, recompute, inputs)

    def time_slice(s: Array, now: tuple[Array, Array | None]) -> tuple[Array, Array]:
        """State (B, H) after some time steps, and after each of them; `now` holds their `projected` and `valid`."""
        outputs = _fast_recurrence(activation, recompute, inputs._replace(state=s, projected=now[0], valid=now[1]))
        return outputs[-1], outputs

    # The derivative of this scan goes through the slices backwards. It holds the forward's residuals and the gradient
    # of `projected` for all slices, and everything else for one slice at a time.
    slices = jax.tree.map(lambda a: a.reshape(-1, length, *a.shape[1:]), (projected, valid))  # (slices, time, B, ...)
    with _reverse_mode_only():
        _, outputs = lax.scan(time_slice, state, slices)
    return outputs.reshape(-1, *state.shape)


@contextmanager
def _reverse_mode_only() -> Iterator[None]:
    """Where JAX says that it cannot apply forward mode, say what to do instead."""
    try:
        yield
    except TypeError as error:
        if "forward-mode" not in str(error):
            raise
        raise TypeError(
            "fast_recurrence has no forward derivative: use plain_recurrence (recurrence='plain')"
        ) from error


class _Inputs(NamedTuple):
    """The arrays among the arguments of `plain_recurrence`."""

    projected: Array
    state: Array
    weights: tuple[Array, ...]
    biases: Array
    state_mask: Array | None
    valid: Array | None
    update_mask: Array | None


class _Gates(NamedTuple):
    """Values of the gates in one micro-step, (B, H) each, or (T, B, H) in all time steps; c is None if coupled."""

    h: Array
    t: Array
    c: Array | None


def _gates(
    activation: str, s: Array, blocks: Sequence[Array], bias: Array, state_mask: Array | None, projected: Array | None
) -> _Gates:
    """Gates of one micro-step that starts from the states s (..., B, H).

    `projected` (..., B, G*H) is what the input adds in the same time steps at the first micro-step, None at the others.
    """
    z = _masked_linear(s, blocks, state_mask) + bias  # (..., B, G*H)
    if projected is not None:
        z = z + projected
    z_h, z_t, *z_c = jnp.split(z, z.shape[-1] // s.shape[-1], axis=-1)  # (..., B, H) each
    return _Gates(ACTIVATION[activation](z_h), jax.nn.sigmoid(z_t), jax.nn.sigmoid(z_c[0]) if z_c else None)


def _forward(activation: str, inputs: _Inputs, keep_gates: bool) -> tuple[Array, list[Array], list[_Gates] | None]:
    """Outputs (T, B, H); and per micro-step the states (T, B, H) that it starts from, and its gates."""
    projected, state, weights, biases, state_mask, valid, update_mask = inputs
    blocks_of_weights = [_blocks(weight, state_mask) for weight in weights]  # [micro-step][mask] (H, G*H / M)
    transpose = _has_fixed_sizes(projected) and math.prod(projected.shape[:-1]) >= _ROWS_WORTH_A_TRANSPOSE
    if transpose:  # transposed back within the loop, as a part of the product
        blocks_of_weights = [[block.T for block in blocks] for blocks in blocks_of_weights]

    def time_step(
        before: Array, now: tuple[Array, Array | None]
    ) -> tuple[Array, tuple[Array, list[Array], list[_Gates] | None]]:
        projected_now, valid_now = now  # (B, G*H), (B, 1)
        s, states, gates = before, [], []
        for micro_step, blocks in enumerate(blocks_of_weights):
            if transpose:
                blocks = [block.T for block in blocks]
            h, t, c = gates_now = _gates(
                activation, s, blocks, biases[micro_step], state_mask, projected_now if micro_step == 0 else None
            )
            states.append(s)
            gates.append(gates_now)
            s = _masked_update(h, update_mask) * t + s * (1 - t if c is None else c)  # (B, H)
        if valid_now is not None:
            s = jnp.where(valid_now, s, before)  # (B, H)
        return s, (s, states, gates if keep_gates else None)

    _, (outputs, states, gates) = lax.scan(time_step, state, (projected, valid))
    return outputs, states, gates


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _fast_recurrence(activation: str, recompute: bool, inputs: _Inputs) -> Array:
    return _forward(activation, inputs, keep_gates=False)[0]


class _Residuals(NamedTuple):
    """What the forward keeps for the backward; with `recompute` no gates, but the arrays to compute them from."""

    projected: Array | None
    weights: tuple[Array, ...]
    biases: Array
    state_mask: Array | None
    valid: Array | None
    update_mask: Array | None
    states: list[Array]
    gates: list[_Gates] | None


def _fast_forward(activation: str, recompute: bool, inputs: _Inputs) -> tuple[Array, _Residuals]:
    outputs, states, gates = _forward(activation, inputs, keep_gates=not recompute)
    projected, _, weights, biases, state_mask, valid, update_mask = inputs
    arguments = projected if recompute else None, weights, biases, state_mask, valid, update_mask
    return outputs, _Residuals(*arguments, states, gates)


def _fast_backward(activation: str, recompute: bool, residuals: _Residuals, d_outputs: Array) -> tuple[_Inputs]:
    """Gradients of the inputs, given the gradient of the outputs (T, B, H)."""
    projected, weights, biases, state_mask, valid, update_mask, states, gates = residuals
    slope = _ACTIVATION_SLOPE[activation]
    blocks = [_blocks(weight, state_mask) for weight in weights]
    if gates is None:
        gates = [
            _gates(activation, s, block, bias, state_mask, projected if micro_step == 0 else None)
            for micro_step, (s, block, bias) in enumerate(zip(states, blocks, biases, strict=True))
        ]

    def time_step(
        carry: tuple[Array, Array | None, Array | None], now: tuple[Array, Array | None, list[Array], list[_Gates]]
    ) -> tuple[tuple[Array, Array | None, Array | None], list[Array]]:
        d_s, d_mask, d_update = carry  # (B, H), (M, B, H), (B, H)
        d_output, valid_now, states_now, gates_now = now
        d_s = d_after = d_s + d_output
        if valid_now is not None:  # a held state passes its gradient on to the state before, and nothing to the gates
            d_s = jnp.where(valid_now, d_s, 0)
        d_z_of_micro_steps = []
        for micro_step in reversed(range(len(weights))):
            s, (h, t, c) = states_now[micro_step], gates_now[micro_step]
            updated, d_h = _masked_update(h, update_mask), _masked_update(t * slope(h), update_mask)  # (B, H) each
            d_t = (updated - s if c is None else updated) * t * (1 - t)  # coupled: c = 1 - t depends on t as well
            d_gates = [d_h, d_t] if c is None else [d_h, d_t, s * c * (1 - c)]  # (B, H) each, without the factor d_s
            d_update = None if d_update is None else d_update + d_s * t * h
            d_z = jnp.concatenate([d_s * d_gate for d_gate in d_gates], axis=-1)  # (B, G*H)
            d_z_of_micro_steps.append(d_z)
            d_s_masked, d_mask_now = _masked_linear_backward(d_z, s, blocks[micro_step], state_mask)
            d_s = d_s * (1 - t if c is None else c) + d_s_masked
            d_mask = None if d_mask is None or d_mask_now is None else d_mask + d_mask_now
        if valid_now is not None:
            d_s = jnp.where(valid_now, d_s, d_after)
        return (d_s, d_mask, d_update), d_z_of_micro_steps[::-1]

    start = (
        jnp.zeros(d_outputs.shape[1:], d_outputs.dtype),
        None if state_mask is None else jnp.zeros_like(state_mask),
        None if update_mask is None else jnp.zeros_like(update_mask),
    )
    (d_state, d_mask, d_update), d_zs = lax.scan(time_step, start, (d_outputs, valid, states, gates), reverse=True)
    d_weights = tuple(_weight_gradient(s, d_z, state_mask) for s, d_z in zip(states, d_zs, strict=True))
    d_biases = jnp.stack([d_z.reshape(-1, d_z.shape[-1]).sum(axis=0) for d_z in d_zs])  # (L, G*H)
    return (_Inputs(d_zs[0], d_state, d_weights, d_biases, d_mask, None, d_update),)


_fast_recurrence.defvjp(_fast_forward, _fast_backward)


def _masked_update(x: Array, update_mask: Array | None) -> Array:
    return x if update_mask is None else x * update_mask


def _has_fixed_sizes(array: Array) -> bool:
    """False if `jax.export` leaves a size open: then the size is a symbol, which cannot be compared with a number."""
    return all(isinstance(size, int) for size in array.shape)


def _blocks(weight: Array, mask: Array | None) -> list[Array]:
    """`weight` (features, G*H), cut into the columns that belong to each mask; whole if there is one mask or none.

    Done once per window, because XLA would not move these copies out of a loop.
    """
    return [weight] if mask is None else jnp.split(weight, len(mask), axis=1)


def _masked_linear(x: Array, blocks: Sequence[Array], mask: Array | None) -> Array:
    """`masked_linear` with a weight that `_blocks` has cut."""
    if mask is None:
        return x @ blocks[0]
    return jnp.concatenate([(x * m) @ block for m, block in zip(mask, blocks, strict=True)], axis=-1)


def _masked_linear_backward(
    d_z: Array, s: Array, blocks: Sequence[Array], mask: Array | None
) -> tuple[Array, Array | None]:
    """Gradients of s (B, H) and mask (M, B, H) in `_masked_linear(s, blocks, mask)`, given the gradient of its value.

    Where nobody asks for the mask's gradient, XLA removes it from the loop.
    """
    if mask is None:
        return d_z @ blocks[0].T, None
    parts = zip(jnp.split(d_z, len(mask), axis=-1), blocks, strict=True)
    d_masked = jnp.stack([d_z_part @ block.T for d_z_part, block in parts])  # (M, B, H)
    return (d_masked * mask).sum(axis=0), d_masked * s


def _weight_gradient(states: Array, d_z: Array, mask: Array | None) -> Array:
    """(H, G*H) gradient of one micro-step's weight: a single product over time and batch for all gates with one mask.

    states (T, B, H) and d_z (T, B, G*H) are of all time steps.
    """
    masks = [1] if mask is None else mask
    parts = zip(masks, jnp.split(d_z, len(masks), axis=-1), strict=True)
    time_and_batch = list(range(states.ndim - 1))
    return jnp.concatenate(
        [jnp.tensordot(states * m, d_z_part, axes=(time_and_batch, time_and_batch)) for m, d_z_part in parts], axis=1
    )
