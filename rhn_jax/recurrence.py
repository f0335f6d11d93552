"""One RHN layer's recurrence over a window (Zilly et al., arXiv 1607.03474, equations 6 to 9; SPEC.md 2.2 to 2.6),
written for reading. `fast_recurrence.py` computes the same, faster.

Shapes: T time, B batch, H hidden, L micro-steps, G gates (2: h, t with c = 1 - t; 3: h, t, c), M masks (1 or G).
B stands for any number of batch axes, none included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

Activation = Callable[[Array], Array]

ACTIVATION: dict[str, Activation] = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu}


def micro_step(s: Array, z: Array, activation: Activation, update_mask: Array | None = None) -> Array:
    """The state after one micro-step (B, H), from the state s before it and the gates' arguments z (B, G*H)."""
    z_h, z_t, *z_c = jnp.split(z, z.shape[-1] // s.shape[-1], axis=-1)  # (B, H) each
    h, t = activation(z_h), jax.nn.sigmoid(z_t)  # (B, H) each
    c = jax.nn.sigmoid(z_c[0]) if z_c else 1 - t  # (B, H)
    if update_mask is not None:
        h = h * update_mask  # (B, H)
    return h * t + s * c  # (B, H): the carried s is never masked


def time_step(
    s: Array,
    projected: Array,
    recurrent_weights: Sequence[Array],
    biases: Array,
    state_mask: Array | None = None,
    activation: str = "tanh",
    update_mask: Array | None = None,
) -> Array:
    """The state (B, H) after one time step: L micro-steps, each with its own weights and biases.

    Args:
        s: (B, H), the state before.
        projected: (B, G*H), masked input times input weight; it is added at the first micro-step only.
        recurrent_weights, biases, state_mask, activation, update_mask: see `plain_recurrence`.
    """
    for step, (weight, bias) in enumerate(zip(recurrent_weights, biases, strict=True)):
        z = masked_linear(s, weight, state_mask) + bias  # (B, G*H)
        if step == 0:
            z = z + projected
        s = micro_step(s, z, ACTIVATION[activation], update_mask)  # (B, H)
    return s


def plain_recurrence(
    projected: Array,
    state: Array,
    recurrent_weights: Sequence[Array],
    biases: Array,
    state_mask: Array | None = None,
    activation: str = "tanh",
    valid: Array | None = None,
    update_mask: Array | None = None,
) -> Array:
    """States after every time step of a window. JAX has derivatives of any order and any mode; slower.

    Args:
        projected: (T, B, G*H), masked input times input weight.
        state: (B, H), the state before the window.
        recurrent_weights: L matrices (H, G*H), one block of H columns per gate.
        biases: (L, G*H).
        state_mask: (M, B, H), constant over time and micro-steps, or None.
        activation: nonlinearity of the candidate h: "tanh", "sigmoid" or "relu".
        valid: (T, B, 1) booleans; where False, the state is held (SPEC.md 7.2). None: all are True.
        update_mask: (B, H), for the candidate h, constant over time and micro-steps, or None.

    Returns:
        (T, B, H).
    """

    def step(s: Array, now: tuple[Array, Array | None]) -> tuple[Array, Array]:
        projected_now, valid_now = now  # (B, G*H), (B, 1)
        after = time_step(s, projected_now, recurrent_weights, biases, state_mask, activation, update_mask)  # (B, H)
        s = after if valid_now is None else jnp.where(valid_now, after, s)  # (B, H)
        return s, s

    _, outputs = lax.scan(step, state, (projected, valid))  # (T, B, H)
    return outputs


def masked_linear(x: Array, weight: Array, mask: Array | None) -> Array:
    """(x * mask) @ weight, where each gate may have its own mask.

    Args:
        x: (..., B, features).
        weight: (features, G*H).
        mask: (M, B, features), or (M, ..., B, features), or None. M = 1 if the gates share a mask, else G.

    Returns:
        (..., B, G*H).
    """
    if mask is None:
        return x @ weight
    weights = jnp.split(weight, len(mask), axis=1)  # the columns that each mask is for
    return jnp.concatenate([(x * m) @ w for m, w in zip(mask, weights, strict=True)], axis=-1)
