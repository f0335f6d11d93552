"""One RHN layer's recurrence over a window (Zilly et al., arXiv 1607.03474, equations 6 to 9).

Both functions take the input projection of all time steps and compute the same result. `fast_recurrence` has a
hand-written backward; `plain_recurrence` leaves it to TensorFlow, and so has derivatives of any order.

Both are a `tf.while_loop` over time with the micro-steps unrolled inside, and run eagerly, in a `tf.function` and with
`jit_compile=True`. XLA is where they are fast, on the CPU too: its matrix products are no slower in a loop than
TensorFlow's own are outside, and it fuses everything between two of them. So nothing here is arranged to save
elementwise operations: what the backward needs of a micro-step is computed when it is needed, not in bulk.

Shapes: T time, B batch, H hidden, L micro-steps, G gates (2: h, t with c = 1 - t; 3: h, t, c), M masks (1 or G).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

_ACTIVATION: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "tanh": tf.tanh,
    "sigmoid": tf.sigmoid,
    "relu": tf.nn.relu,
}
# Derivative of each activation, as a function of its value h.
_SLOPE: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "tanh": lambda h: 1 - h * h,
    "sigmoid": lambda h: h * (1 - h),
    "relu": lambda h: tf.cast(h > 0, h.dtype),
}

_NO_SECOND_DERIVATIVE = "fast_recurrence has no second derivative: use plain_recurrence (recurrence='plain')"


def fast_recurrence(
    projected: tf.Tensor,
    state: tf.Tensor,
    recurrent_weights: Sequence[tf.Tensor],
    biases: tf.Tensor,
    state_mask: tf.Tensor | None = None,
    activation: str = "tanh",
) -> tf.Tensor:
    """States after every time step of a window, with a hand-written backward.

    The backward does one elementwise update and one matrix product per micro-step, then computes each weight's gradient
    as one matrix product over time and batch.

    Args:
        projected: (T, B, G*H) masked input times input weight.
        state: (B, H) before the window.
        recurrent_weights: L matrices (H, G*H), one block of H columns per gate, as Keras' `recurrent_kernel`.
        biases: (L, G*H).
        state_mask: (M, B, H) constant over time and micro-steps, or None. Its gradient is None.
        activation: of the candidate h; "tanh", "sigmoid" or "relu".

    Returns:
        (T, B, H).

    Raises:
        LookupError: a second derivative is asked for.
    """

    @tf.custom_gradient
    def recurrence(
        projected: tf.Tensor, state: tf.Tensor, biases: tf.Tensor, *weights: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
        ends, gates = _forward(projected, state, weights, biases, state_mask, activation)
        outputs = ends[-1]  # (T, B, H)

        def gradient(d_outputs: tf.Tensor) -> list[tf.Tensor]:
            before = tf.concat([state[tf.newaxis], outputs[:-1]], axis=0)  # (T, B, H)
            starts = [before, *ends[:-1]]  # per level (T, B, H)
            gradients = _backward(d_outputs, starts, gates, weights, state_mask, activation)
            return [tf.raw_ops.PreventGradient(input=g, message=_NO_SECOND_DERIVATIVE) for g in gradients]

        return outputs, gradient

    # Tensors, because a custom gradient treats variables apart.
    outputs = recurrence(projected, state, *map(tf.convert_to_tensor, (biases, *recurrent_weights)))
    return tf.ensure_shape(outputs, (projected.shape[0], *state.shape))  # the loop has forgotten the length


def plain_recurrence(
    projected: tf.Tensor,
    state: tf.Tensor,
    recurrent_weights: Sequence[tf.Tensor],
    biases: tf.Tensor,
    state_mask: tf.Tensor | None = None,
    activation: str = "tanh",
) -> tf.Tensor:
    """As `fast_recurrence`, differentiated by TensorFlow: any order, any argument; slower."""
    length = tf.shape(projected)[0]

    def body(time: tf.Tensor, s: tf.Tensor, outputs: tf.TensorArray) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
        s = time_step(projected[time], s, recurrent_weights, biases, state_mask, activation)  # (B, H)
        return time + 1, s, outputs.write(time, s)

    start = (tf.constant(0), state, _array_over_time(length, state))
    _, _, outputs = tf.while_loop(lambda time, *_: time < length, body, start, maximum_iterations=length)
    return tf.ensure_shape(outputs.stack(), (projected.shape[0], *state.shape))  # the loop has forgotten the length


def time_step(
    projected: tf.Tensor,
    state: tf.Tensor,
    recurrent_weights: Sequence[tf.Tensor],
    biases: tf.Tensor,
    state_mask: tf.Tensor | None = None,
    activation: str = "tanh",
) -> tf.Tensor:
    """One time step of `plain_recurrence`: `projected` is (B, G*H), the result (B, H)."""
    s = state  # (B, H)
    for level, (weight, bias) in enumerate(zip(recurrent_weights, tf.unstack(biases), strict=True)):
        z = masked_linear(s, weight, state_mask) + bias  # (B, G*H)
        if level == 0:
            z += projected
        s, _ = _micro_step(z, s, activation)
    return s


def masked_linear(x: tf.Tensor, weight: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """(x * mask) @ weight, every gate with its own mask.

    Args:
        x: (..., B, features).
        weight: (features, G*H).
        mask: (M, B, features), M = 1 if the gates share it, else G; or None.

    Returns:
        (..., B, G*H).
    """
    # tensordot makes one large product of it; matmul would make one per time step.
    if mask is None:
        return tf.tensordot(x, weight, axes=1)
    blocks = tf.split(weight, mask.shape[0], axis=1)  # per mask (features, G*H / M)
    return tf.concat(
        [tf.tensordot(x * m, block, axes=1) for m, block in zip(tf.unstack(mask), blocks, strict=True)], axis=-1
    )


def _micro_step(z: tf.Tensor, s: tf.Tensor, activation: str) -> tuple[tf.Tensor, tf.Tensor]:
    """The next state (B, H) and the gate values (B, G*H), given the gates' arguments z (B, G*H) and the state s."""
    z_h, z_t, *z_c = tf.split(z, z.shape[-1] // s.shape[-1], axis=-1)  # (B, H) each
    h = _ACTIVATION[activation](z_h)
    t = tf.sigmoid(z_t)
    if z_c:
        c = tf.sigmoid(z_c[0])
        return h * t + s * c, tf.concat([h, t, c], axis=-1)
    return h * t + s * (1 - t), tf.concat([h, t], axis=-1)  # the carried s is never masked


# ----------------------------------------------------------------------------------------------------------------------
# The fast path
# ----------------------------------------------------------------------------------------------------------------------


def _forward(
    projected: tf.Tensor,
    state: tf.Tensor,
    weights: Sequence[tf.Tensor],
    biases: tf.Tensor,
    state_mask: tf.Tensor | None,
    activation: str,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Per level the states that the micro-steps end with (T, B, H) and the gate values (T, B, G*H)."""
    length, depth = tf.shape(projected)[0], len(weights)
    recurrent = [_RecurrentProjection(weight, state_mask) for weight in weights]
    offsets = tf.unstack(biases)  # per level (G*H,)
    projected = projected + offsets[0]  # (T, B, G*H)

    def body(time: tf.Tensor, s: tf.Tensor, ends: list[tf.TensorArray], gates: list[tf.TensorArray]) -> Any:
        ends, gates = list(ends), list(gates)
        for level in range(depth):
            offset = projected[time] if level == 0 else offsets[level]  # (B, G*H) or (G*H,)
            s, values = _micro_step(recurrent[level].forward(s) + offset, s, activation)  # (B, H), (B, G*H)
            ends[level] = ends[level].write(time, s)
            gates[level] = gates[level].write(time, values)
        return time + 1, s, ends, gates

    ends = [_array_over_time(length, state) for _ in range(depth)]
    gates = [_array_over_time(length, projected[0]) for _ in range(depth)]
    start = (tf.constant(0), state, ends, gates)
    _, _, ends, gates = tf.while_loop(lambda time, *_: time < length, body, start, maximum_iterations=length)
    return [array.stack() for array in ends], [array.stack() for array in gates]


def _backward(
    d_outputs: tf.Tensor,
    starts: Sequence[tf.Tensor],
    gates: Sequence[tf.Tensor],
    weights: Sequence[tf.Tensor],
    state_mask: tf.Tensor | None,
    activation: str,
) -> tuple[tf.Tensor, ...]:
    """Gradients of projected, state, biases and of every recurrent weight.

    `starts` are per level (T, B, H), the state that each micro-step starts from; `gates` per level (T, B, G*H).
    """
    length, depth = tf.shape(d_outputs)[0], len(weights)
    recurrent = [_RecurrentProjection(weight, state_mask) for weight in weights]

    def body(time: tf.Tensor, d_s: tf.Tensor, d_z: list[tf.TensorArray]) -> Any:
        d_z = list(d_z)
        d_s += d_outputs[time]  # (B, H)
        for level in reversed(range(depth)):
            d_carried, d_z_now = _micro_step_gradient(d_s, starts[level][time], gates[level][time], activation)
            d_s = d_carried + recurrent[level].backward(d_z_now)
            d_z[level] = d_z[level].write(time, d_z_now)
        return time - 1, d_s, d_z

    d_z = [_array_over_time(length, gates[0][0]) for _ in range(depth)]
    start = (length - 1, tf.zeros_like(d_outputs[0]), d_z)
    _, d_state, d_z = tf.while_loop(lambda time, *_: time >= 0, body, start, maximum_iterations=length)
    d_z = [array.stack() for array in d_z]  # per level (T, B, G*H)
    d_biases = tf.stack([tf.reduce_sum(d, axis=(0, 1)) for d in d_z])  # (L, G*H)
    d_weights = [r.weight_gradient(s, d) for r, s, d in zip(recurrent, starts, d_z, strict=True)]  # (H, G*H) each
    return d_z[0], d_state, d_biases, *d_weights


def _micro_step_gradient(
    d_s: tf.Tensor, s: tf.Tensor, gates: tf.Tensor, activation: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """What reaches the state before a micro-step along the carry (B, H), and the gradient of the gates' arguments.

    Args:
        d_s: (B, H) gradient of the state after the micro-step.
        s: (B, H) state before it.
        gates: (B, G*H) gate values.
        activation: of the candidate h.
    """
    h, t, *c = tf.split(gates, gates.shape[-1] // s.shape[-1], axis=-1)  # (B, H) each
    d_z_h = d_s * t * _SLOPE[activation](h)
    if c:
        d_z_t = d_s * h * t * (1 - t)
        d_z_c = d_s * s * c[0] * (1 - c[0])
        return d_s * c[0], tf.concat([d_z_h, d_z_t, d_z_c], axis=-1)
    d_z_t = d_s * (h - s) * t * (1 - t)  # c = 1 - t depends on t as well
    return d_s * (1 - t), tf.concat([d_z_h, d_z_t], axis=-1)


class _RecurrentProjection:
    """What one recurrent weight (H, G*H) does: one matrix product per mask, on blocks that are cut out once."""

    def __init__(self, weight: tf.Tensor, mask: tf.Tensor | None) -> None:
        masks = [None] if mask is None else tf.unstack(mask)  # M of (B, H)
        self.num_blocks = len(masks)
        blocks = tf.split(weight, self.num_blocks, axis=1)  # M of (H, G*H / M)
        self.masked_blocks = list(zip(masks, blocks, strict=True))

    def forward(self, s: tf.Tensor) -> tf.Tensor:
        """(B, H) to (B, G*H)."""
        return tf.concat([tf.matmul(_masked(s, mask), block) for mask, block in self.masked_blocks], axis=-1)

    def backward(self, d_z: tf.Tensor) -> tf.Tensor:
        """(B, G*H) to (B, H)."""
        pieces = tf.split(d_z, self.num_blocks, axis=-1)  # M of (B, G*H / M)
        # The transpose is left to the product: on a copy transposed before the loop, XLA's products are slower.
        return tf.add_n(
            [
                _masked(tf.matmul(piece, block, transpose_b=True), mask)
                for piece, (mask, block) in zip(pieces, self.masked_blocks, strict=True)
            ]
        )

    def weight_gradient(self, s: tf.Tensor, d_z: tf.Tensor) -> tf.Tensor:
        """(H, G*H), given all states (T, B, H) and gradients (T, B, G*H)."""
        pieces = tf.split(d_z, self.num_blocks, axis=-1)  # M of (T, B, G*H / M)
        return tf.concat(
            [
                tf.matmul(_rows(_masked(s, mask)), _rows(piece), transpose_a=True)
                for piece, (mask, _) in zip(pieces, self.masked_blocks, strict=True)
            ],
            axis=-1,
        )


def _masked(x: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    return x if mask is None else x * mask


def _rows(x: tf.Tensor) -> tf.Tensor:
    """(T, B, features) to (T*B, features)."""
    return tf.reshape(x, (-1, x.shape[-1]))


def _array_over_time(length: tf.Tensor, like: tf.Tensor) -> tf.TensorArray:
    """Room for one tensor such as `like` per time step."""
    return tf.TensorArray(like.dtype, size=length, element_shape=like.shape)
