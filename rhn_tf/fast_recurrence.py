"""The same results as `recurrence.py`, with a hand-written backward; read recurrence.py first.

Forward and backward are a `tf.while_loop` over time with the micro-steps unrolled inside. They run eagerly, in a
`tf.function` and with `jit_compile=True`. They are fast under XLA, on the CPU too: its matrix products in a loop are as
fast as TensorFlow's own outside of one, and it fuses everything between two products. So this code does not try to save
elementwise operations: the backward computes its factors micro-step by micro-step, not in bulk.

Shapes: as in `recurrence.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tensorflow as tf

from rhn.port_tools import steps_per_slice
from rhn_tf.precision import UNROUNDED, Precision
from rhn_tf.recurrence import ACTIVATION

# Derivative of each activation, as a function of its value h.
_SLOPE: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "tanh": lambda h: 1 - h * h,
    "sigmoid": lambda h: h * (1 - h),
    "relu": lambda h: tf.cast(h > 0, h.dtype),
}

# Rows (time x batch) that the backward treats at a time, at least. Enough to keep the weight gradients' matrix products
# efficient; few enough that its buffers stay small beside what the forward saved.
_SLICE_ROWS = 1024
# Number of rows from which transposing the weights pays off.
_ROWS_WORTH_A_TRANSPOSE = 500

_NO_SECOND_DERIVATIVE = "fast_recurrence has no second derivative: use plain_recurrence (recurrence='plain')"

# From micro-step, time and the state before (B, H) to the values of the gates h, t and, if uncoupled, c, (B, H) each.
GatesAt = Callable[[int, tf.Tensor, tf.Tensor], list[tf.Tensor]]


def fast_recurrence(
    projected: tf.Tensor,
    state: tf.Tensor,
    recurrent_weights: Sequence[tf.Tensor],
    biases: tf.Tensor,
    state_mask: tf.Tensor | None = None,
    activation: str = "tanh",
    precision: Precision = UNROUNDED,
    valid: tf.Tensor | None = None,
    update_mask: tf.Tensor | None = None,
    recompute: bool = False,
) -> tf.Tensor:
    """States after every time step of a window (T, B, H): `plain_recurrence` with a hand-written backward.

    The backward does one elementwise update and one matrix product per micro-step, then computes each weight's gradient
    as one matrix product over time and batch; long windows in slices of time.

    Args:
        projected, state, recurrent_weights, biases, activation, precision, valid: see `plain_recurrence`.
        state_mask, update_mask: likewise; their gradients are None.
        recompute: keep `projected` and the states for the backward but no gates, and compute these anew there: exact,
            in less memory and a little more time.

    Raises:
        LookupError: a second derivative is asked for.
    """

    @tf.custom_gradient
    def recurrence(
        projected: tf.Tensor, state: tf.Tensor, biases: tf.Tensor, *weights: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
        rows = projected.shape[:2].num_elements()  # T*B, None if unknown
        recurrent = [_RecurrentProjection(weight, state_mask, precision, rows) for weight in weights]
        offsets = tf.unstack(biases)  # per micro-step (G*H,)
        projected = projected + offsets[0]  # (T, B, G*H)

        def compute_gates(micro_step: int, time: tf.Tensor, s: tf.Tensor) -> list[tf.Tensor]:
            offset = projected[time] if micro_step == 0 else offsets[micro_step]  # (B, G*H) or (G*H,)
            return _gates(recurrent[micro_step].forward(s) + offset, s, activation)

        ends, gates = _forward(
            compute_gates, projected, state, valid, update_mask, depth=len(weights), keep_gates=not recompute
        )
        outputs = ends[-1]  # (T, B, H)

        def kept_gates(micro_step: int, time: tf.Tensor, s: tf.Tensor) -> list[tf.Tensor]:
            return _split(gates[micro_step][time], s)

        def gradient(d_outputs: tf.Tensor) -> list[tf.Tensor]:
            before = tf.concat([state[tf.newaxis], outputs[:-1]], axis=0)  # (T, B, H)
            starts = [before, *ends[:-1]]  # per micro-step (T, B, H)
            # The gates are recomputed step by step: one product per micro-step for all time steps is no faster, and
            # needs the very arrays that should not be kept.
            gates_at = compute_gates if recompute else kept_gates
            through = partial(_micro_step_gradient, activation=activation, update_mask=update_mask)
            gradients = _backward_in_slices(d_outputs, starts, gates_at, valid, recurrent, through)
            return [tf.raw_ops.PreventGradient(input=g, message=_NO_SECOND_DERIVATIVE) for g in gradients]

        return outputs, gradient

    # Tensors, because a custom gradient treats variables apart.
    outputs = recurrence(projected, state, *map(tf.convert_to_tensor, (biases, *recurrent_weights)))
    return tf.ensure_shape(outputs, (projected.shape[0], *state.shape))  # the loop has forgotten the length


def _gates(z: tf.Tensor, s: tf.Tensor, activation: str) -> list[tf.Tensor]:
    """The values of the gates, (B, H) each, from their arguments z (B, G*H); the state s (B, H) tells their size."""
    z_h, z_t, *z_c = _split(z, s)
    return [ACTIVATION[activation](z_h), tf.sigmoid(z_t), *map(tf.sigmoid, z_c)]


def _next_state(s: tf.Tensor, gates: list[tf.Tensor], update_mask: tf.Tensor | None) -> tf.Tensor:
    """The state after a micro-step (B, H), from the state s before it and the gates."""
    h, t, *c = gates
    return _masked(h, update_mask) * t + s * (c[0] if c else 1 - t)


def _forward(
    gates_at: GatesAt,
    projected: tf.Tensor,
    state: tf.Tensor,
    valid: tf.Tensor | None,
    update_mask: tf.Tensor | None,
    depth: int,
    keep_gates: bool,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Per micro-step the states that it ends with (T, B, H) and, if they are kept, the gates (T, B, G*H).

    The states of the last micro-step are the states after the time step; if it is not valid, the state before it.
    """
    length = tf.shape(projected)[0]

    def body(time: tf.Tensor, s: tf.Tensor, ends: list[tf.TensorArray], gates: list[tf.TensorArray]) -> Any:
        ends, gates = list(ends), list(gates)
        before = s  # (B, H)
        for micro_step in range(depth):
            values = gates_at(micro_step, time, s)  # (B, H) each
            s = _next_state(s, values, update_mask)  # (B, H)
            if valid is not None and micro_step == depth - 1:
                s = tf.where(valid[time], s, before)  # (B, H)
            ends[micro_step] = ends[micro_step].write(time, s)
            if keep_gates:
                gates[micro_step] = gates[micro_step].write(time, tf.concat(values, axis=-1))
        return time + 1, s, ends, gates

    ends = [_array_over_time(length, state, state.shape[-1]) for _ in range(depth)]
    gates = [_array_over_time(length, state, projected.shape[-1]) for _ in range(depth)] if keep_gates else []
    start = (tf.constant(0), state, ends, gates)
    _, _, ends, gates = tf.while_loop(lambda time, *_: time < length, body, start, maximum_iterations=length)
    return [array.stack() for array in ends], [array.stack() for array in gates]


def _backward_in_slices(
    d_outputs: tf.Tensor,
    starts: Sequence[tf.Tensor],
    gates_at: GatesAt,
    valid: tf.Tensor | None,
    recurrent: Sequence[_RecurrentProjection],
    through: Callable[..., tuple[tf.Tensor, tf.Tensor]],
) -> tuple[tf.Tensor, ...]:
    """As `_backward` with a zero `d_state`; a long window is cut into slices, to save memory for gradients."""
    no_gradient = tf.zeros_like(d_outputs[0])  # (B, H)
    length, batch_size = d_outputs.shape[:2]
    # A window of unknown size is taken whole: only what is compiled for one size can be long.
    steps = length if None in (length, batch_size) else steps_per_slice(length, batch_size, _SLICE_ROWS)
    if steps == length:
        return _backward(d_outputs, no_gradient, starts, gates_at, valid, recurrent, through)
    num_slices = length // steps

    def body(number: tf.Tensor, d_state: tf.Tensor, d_projected: tf.TensorArray, sums: list[tf.Tensor]) -> Any:
        begin = number * steps

        def now(over_time: tf.Tensor) -> tf.Tensor:
            """(T, B, features) to (steps, B, features)."""
            return tf.slice(over_time, (begin, 0, 0), (steps, *over_time.shape[1:]))

        def gates_now(micro_step: int, step: tf.Tensor, s: tf.Tensor) -> list[tf.Tensor]:
            return gates_at(micro_step, begin + step, s)

        valid_now = None if valid is None else now(valid)
        d_projected_now, d_state, *gradients = _backward(
            now(d_outputs), d_state, list(map(now, starts)), gates_now, valid_now, recurrent, through
        )
        sums = [a + b for a, b in zip(sums, gradients, strict=True)]
        return number - 1, d_state, d_projected.write(number, d_projected_now), sums

    width, hidden_size = recurrent[0].width, no_gradient.shape[-1]
    shapes = [(len(recurrent), width), *[(hidden_size, width)] * len(recurrent)]  # of the biases and of each weight
    sums = [tf.zeros(shape, d_outputs.dtype) for shape in shapes]
    slices = tf.TensorArray(d_outputs.dtype, size=num_slices, element_shape=(steps, batch_size, width))
    _, d_state, slices, sums = tf.while_loop(
        lambda number, *_: number >= 0,
        body,
        (tf.constant(num_slices - 1), no_gradient, slices, sums),
        maximum_iterations=num_slices,
    )
    return tf.reshape(slices.stack(), (length, batch_size, width)), d_state, *sums


def _backward(
    d_outputs: tf.Tensor,
    d_state: tf.Tensor,
    starts: Sequence[tf.Tensor],
    gates_at: GatesAt,
    valid: tf.Tensor | None,
    recurrent: Sequence[_RecurrentProjection],
    through: Callable[..., tuple[tf.Tensor, tf.Tensor]],
) -> tuple[tf.Tensor, ...]:
    """Gradients of projected, state, biases and of every recurrent weight.

    `d_state` (B, H) is the gradient of the state after the window, without the part from the outputs; `starts` are per
    micro-step (T, B, H), the states before it; `through` is `_micro_step_gradient` with its options.
    """
    length, depth = tf.shape(d_outputs)[0], len(recurrent)

    def body(time: tf.Tensor, d_s: tf.Tensor, d_z: list[tf.TensorArray]) -> Any:
        d_z = list(d_z)
        d_s += d_outputs[time]  # (B, H)
        if valid is not None:  # a held state passes its gradient on to the state before, and nothing to the gates
            nothing = tf.zeros_like(d_s)  # (B, H)
            d_held, d_s = tf.where(valid[time], nothing, d_s), tf.where(valid[time], d_s, nothing)  # (B, H) each
        for micro_step in reversed(range(depth)):
            s = starts[micro_step][time]  # (B, H)
            d_carried, d_z_now = through(d_s, s, gates_at(micro_step, time, s))
            d_s = d_carried + recurrent[micro_step].backward(d_z_now)
            d_z[micro_step] = d_z[micro_step].write(time, d_z_now)
        if valid is not None:
            d_s += d_held
        return time - 1, d_s, d_z

    d_z = [_array_over_time(length, d_outputs[0], r.width) for r in recurrent]
    start = (length - 1, d_state, d_z)
    _, d_state, d_z = tf.while_loop(lambda time, *_: time >= 0, body, start, maximum_iterations=length)
    d_z = [array.stack() for array in d_z]  # per micro-step (T, B, G*H)
    d_biases = tf.stack([tf.reduce_sum(d, axis=(0, 1)) for d in d_z])  # (L, G*H)
    d_weights = [r.weight_gradient(s, d) for r, s, d in zip(recurrent, starts, d_z, strict=True)]  # (H, G*H) each
    return d_z[0], d_state, d_biases, *d_weights


def _micro_step_gradient(
    d_s: tf.Tensor, s: tf.Tensor, gates: list[tf.Tensor], activation: str, update_mask: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradients of the state before a micro-step, along the carry only (B, H), and of the gates' arguments.

    Args:
        d_s: (B, H) gradient of the state after the micro-step.
        s: (B, H) state before it.
        gates: their values, (B, H) each.
        activation: of the candidate h.
        update_mask: (B, H) on it, or None.
    """
    h, t, *c = gates
    d_z_h = _masked(d_s * t * _SLOPE[activation](h), update_mask)
    h = _masked(h, update_mask)
    if c:
        d_z_t = d_s * h * t * (1 - t)
        d_z_c = d_s * s * c[0] * (1 - c[0])
        return d_s * c[0], tf.concat([d_z_h, d_z_t, d_z_c], axis=-1)
    d_z_t = d_s * (h - s) * t * (1 - t)  # c = 1 - t depends on t as well
    return d_s * (1 - t), tf.concat([d_z_h, d_z_t], axis=-1)


class _RecurrentProjection:
    """Products with one recurrent weight (H, G*H): one per mask, on blocks that are cut out once.

    On a CPU, XLA multiplies faster by a large matrix that is stored transposed: the backward uses one, and so does the
    forward of a window that has enough rows.
    """

    def __init__(self, weight: tf.Tensor, mask: tf.Tensor | None, precision: Precision, rows: int | None) -> None:
        self.width = weight.shape[1]  # G*H
        self.masks = [None] if mask is None else tf.unstack(mask)  # M of (B, H)
        blocks = tf.split(weight, len(self.masks), axis=1)  # M of (H, G*H / M)
        self.blocks = list(map(precision.factor, blocks))  # once, not at every time step
        self.is_transposed = rows is not None and rows >= _ROWS_WORTH_A_TRANSPOSE
        self.blocks_forward = list(map(tf.transpose, self.blocks)) if self.is_transposed else self.blocks
        self.precision = precision

    def forward(self, s: tf.Tensor) -> tf.Tensor:
        """(B, H) to (B, G*H)."""
        return tf.concat(
            [
                self.precision.matmul(_masked(s, mask), block, transpose_b=self.is_transposed)
                for mask, block in zip(self.masks, self.blocks_forward, strict=True)
            ],
            axis=-1,
        )

    def backward(self, d_z: tf.Tensor) -> tf.Tensor:
        """(B, G*H) to (B, H)."""
        pieces = tf.split(d_z, len(self.masks), axis=-1)  # M of (B, G*H / M)
        return tf.add_n(
            [
                _masked(self.precision.matmul(piece, block, transpose_b=True), mask)
                for piece, mask, block in zip(pieces, self.masks, self.blocks, strict=True)
            ]
        )

    def weight_gradient(self, s: tf.Tensor, d_z: tf.Tensor) -> tf.Tensor:
        """(H, G*H), given all states (T, B, H) and gradients (T, B, G*H)."""
        pieces = tf.split(d_z, len(self.masks), axis=-1)  # M of (T, B, G*H / M)
        return tf.concat(
            [
                self.precision.matmul(_rows(_masked(s, mask)), _rows(piece), transpose_a=True)
                for piece, mask in zip(pieces, self.masks, strict=True)
            ],
            axis=-1,
        )


def _split(gates: tf.Tensor, s: tf.Tensor) -> list[tf.Tensor]:
    """(B, G*H) to G of (B, H), the size of the state s."""
    return tf.split(gates, gates.shape[-1] // s.shape[-1], axis=-1)


def _masked(x: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    return x if mask is None else x * mask


def _rows(x: tf.Tensor) -> tf.Tensor:
    """(T, B, features) to (T*B, features)."""
    return tf.reshape(x, (-1, x.shape[-1]))


def _array_over_time(length: tf.Tensor, state: tf.Tensor, features: int) -> tf.TensorArray:
    """Room for one tensor (B, features) per time step, given a state (B, H)."""
    return tf.TensorArray(state.dtype, size=length, element_shape=(state.shape[0], features))
