"""One RHN layer's recurrence over a window (Zilly et al., arXiv 1607.03474, equations 6 to 9; SPEC.md 2.2 to 2.6),
written for reading. `fast_recurrence.py` computes the same, faster.

Shapes: T time steps, B batch, H hidden units, L micro-steps, G gates (2: h, t with c = 1 - t; 3: h, t, c),
M masks (1 or G).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

ACTIVATION: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
}


def micro_step(
    s: Tensor, z: Tensor, activation: Callable[[Tensor], Tensor], update_mask: Tensor | None = None
) -> Tensor:
    """The state after one micro-step (B, H), from the state s before it and the gates' arguments z (B, G*H)."""
    z_h, z_t, *z_c = z.split(s.shape[-1], dim=-1)  # (B, H) each
    h, t = activation(z_h), torch.sigmoid(z_t)
    c = torch.sigmoid(z_c[0]) if z_c else 1 - t
    if update_mask is not None:
        h = h * update_mask
    return h * t + s * c  # the carried s is never masked


def time_step(
    s: Tensor,
    projected: Tensor,
    recurrent_weights: Sequence[Tensor],
    biases: Tensor,
    state_mask: Tensor | None = None,
    activation: str = "tanh",
    update_mask: Tensor | None = None,
) -> Tensor:
    """The state (B, H) after one time step: L micro-steps, each with its own weights and biases.

    Args:
        s: (B, H), the state before.
        projected: (B, G*H), masked input times input weight; it is added at the first micro-step only.
        recurrent_weights, biases, state_mask, activation, update_mask: see `plain_recurrence`.
    """
    for step, (weight, bias) in enumerate(zip(recurrent_weights, biases.unbind(), strict=True)):
        z = masked_linear(s, weight, state_mask) + bias  # (B, G*H)
        if step == 0:
            z = z + projected
        s = micro_step(s, z, ACTIVATION[activation], update_mask)  # (B, H)
    return s


def plain_recurrence(
    projected: Tensor,
    state: Tensor,
    recurrent_weights: Sequence[Tensor],
    biases: Tensor,
    state_mask: Tensor | None = None,
    activation: str = "tanh",
    update_mask: Tensor | None = None,
    padding: Tensor | None = None,
) -> Tensor:
    """States after every time step of a window. Autograd has derivatives of any order, any argument, any transform.

    Args:
        projected: (T, B, G*H), masked input times input weight.
        state: (B, H), the state before the window.
        recurrent_weights: L matrices (G*H, H), one block of H rows per gate, as `nn.LSTM` stacks them.
        biases: (L, G*H).
        state_mask: (M, B, H), constant over time and micro-steps, or None.
        activation: nonlinearity of the candidate h: "tanh", "sigmoid" or "relu".
        update_mask: (B, H), for the candidate h, constant over time and micro-steps, or None.
        padding: (T, B, 1) booleans; after these time steps the state becomes 0. None: no padding. The states there are
            not used, but with relu they may overflow and spoil the gradients.

    Returns:
        (T, B, H).
    """
    s = state  # (B, H)
    outputs = []
    for time, projected_now in enumerate(projected.unbind()):  # (B, G*H)
        s = time_step(s, projected_now, recurrent_weights, biases, state_mask, activation, update_mask)  # (B, H)
        if padding is not None:
            s = s.masked_fill(padding[time], 0)
        outputs.append(s)
    return torch.stack(outputs)  # (T, B, H)


def masked_linear(x: Tensor, weight: Tensor, mask: Tensor | None) -> Tensor:
    """(x * mask) @ weight.T, where each gate may have its own mask.

    Args:
        x: (..., B, features).
        weight: (G*H, features).
        mask: (M, B, features), or (M, ..., B, features), or None. M = 1 if the gates share a mask, else G.

    Returns:
        (..., B, G*H).
    """
    if mask is None:
        return F.linear(x, weight)
    if len(mask) == 1:
        return F.linear(x * mask[0], weight)
    blocks = weight.chunk(len(mask))  # per gate (H, features)
    return torch.cat([F.linear(x * m, block) for m, block in zip(mask, blocks, strict=True)], dim=-1)
