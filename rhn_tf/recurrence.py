"""One RHN layer's recurrence over a window (Zilly et al., arXiv 1607.03474, equations 6 to 9; SPEC.md 2.2 to 2.6),
written for reading. `fast_recurrence.py` computes the same, faster.

Shapes: T time, B batch, E input features, H hidden units, L micro-steps, G gates (2: h, t with c = 1 - t; 3: h, t, c),
M masks (1: all gates share it; G: one per gate).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from rhn_tf.precision import UNROUNDED, Precision

ACTIVATION: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {"tanh": tf.tanh, "sigmoid": tf.sigmoid, "relu": tf.nn.relu}


def micro_step(
    s: tf.Tensor, z: tf.Tensor, activation: Callable[[tf.Tensor], tf.Tensor], update_mask: tf.Tensor | None = None
) -> tf.Tensor:
    """The state after one micro-step (B, H), from the state s before it and the gates' arguments z (B, G*H)."""
    z_h, z_t, *z_c = tf.split(z, z.shape[-1] // s.shape[-1], axis=-1)  # (B, H) each
    h, t = activation(z_h), tf.sigmoid(z_t)  # (B, H)
    c = tf.sigmoid(z_c[0]) if z_c else 1 - t  # (B, H)
    if update_mask is not None:
        h = h * update_mask  # (B, H)
    return h * t + s * c  # the carried s is never masked


def time_step(
    s: tf.Tensor,
    projected: tf.Tensor,
    recurrent_weights: Sequence[tf.Tensor],
    biases: tf.Tensor,
    state_mask: tf.Tensor | None = None,
    activation: str = "tanh",
    precision: Precision = UNROUNDED,
    update_mask: tf.Tensor | None = None,
) -> tf.Tensor:
    """The state (B, H) after one time step: L micro-steps, each with its own weights and biases.

    Args:
        s: (B, H), the state before.
        projected: (B, G*H), masked input times input weight; it is added at the first micro-step only.
        recurrent_weights, biases, state_mask, activation, precision, update_mask: see `plain_recurrence`.
    """
    for step, (weight, bias) in enumerate(zip(recurrent_weights, tf.unstack(biases), strict=True)):
        z = masked_linear(s, weight, state_mask, precision) + bias  # (B, G*H)
        if step == 0:
            z += projected
        s = micro_step(s, z, ACTIVATION[activation], update_mask)  # (B, H)
    return s


def plain_recurrence(
    projected: tf.Tensor,
    state: tf.Tensor,
    recurrent_weights: Sequence[tf.Tensor],
    biases: tf.Tensor,
    state_mask: tf.Tensor | None = None,
    activation: str = "tanh",
    precision: Precision = UNROUNDED,
    valid: tf.Tensor | None = None,
    update_mask: tf.Tensor | None = None,
    unroll: bool = False,
) -> tf.Tensor:
    """States after every time step of a window. TensorFlow has derivatives of any order and any argument.

    Args:
        projected: (T, B, G*H), masked input times input weight.
        state: (B, H), the state before the window.
        recurrent_weights: L matrices (H, G*H), one block of H columns per gate, as Keras' `recurrent_kernel`.
        biases: (L, G*H).
        state_mask: (M, B, H), constant over time and micro-steps, or None.
        activation: nonlinearity of the candidate h: "tanh", "sigmoid" or "relu".
        precision: precision of the matrix products.
        valid: (T, B, 1) booleans; where False, the state is held (SPEC.md 7.2). None: all are True.
        update_mask: (B, H), for the candidate h, constant over time and micro-steps, or None.
        unroll: build a program without a loop, for a known T; its size grows with T.

    Returns:
        (T, B, H).
    """
    length = tf.shape(projected)[0]

    def body(time: tf.Tensor, s: tf.Tensor, outputs: tf.TensorArray) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
        after = time_step(s, projected[time], recurrent_weights, biases, state_mask, activation, precision, update_mask)
        s = after if valid is None else tf.where(valid[time], after, s)  # (B, H)
        return time + 1, s, outputs.write(time, s)

    outputs = tf.TensorArray(state.dtype, size=length, element_shape=state.shape)
    loop = (tf.constant(0), state, outputs)
    if unroll:
        for _ in range(projected.shape[0]):
            loop = body(*loop)
    else:
        loop = tf.while_loop(lambda time, *_: time < length, body, loop, maximum_iterations=length)
    return tf.ensure_shape(loop[-1].stack(), (projected.shape[0], *state.shape))  # the loop has forgotten the length


def masked_linear(
    x: tf.Tensor, weight: tf.Tensor, mask: tf.Tensor | None, precision: Precision = UNROUNDED
) -> tf.Tensor:
    """(x * mask) @ weight, where each gate may have its own mask.

    Args:
        x: (..., B, features).
        weight: (features, G*H).
        mask: (M, B, features), or (M, ..., B, features), or None. M = 1 if the gates share a mask, else G.
        precision: precision of the matrix products.

    Returns:
        (..., B, G*H).
    """
    if mask is None:
        return precision.linear(x, weight)
    blocks = tf.split(weight, mask.shape[0], axis=1)  # M of (features, G*H / M)
    masked = [x * m for m in tf.unstack(mask)]  # M of (..., B, features)
    return tf.concat([precision.linear(u, block) for u, block in zip(masked, blocks, strict=True)], axis=-1)
