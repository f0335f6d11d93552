"""The recurrence in programs that are exported (`torch.export`, ONNX) or traced."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rhn_torch.recurrence import plain_recurrence, time_step


def exported_recurrence(
    projected: Tensor,
    state: Tensor,
    recurrent_weights: Sequence[Tensor],
    biases: Tensor,
    state_mask: Tensor | None = None,
    activation: str = "tanh",
    update_mask: Tensor | None = None,
) -> Tensor:
    """As `plain_recurrence`, whose operations are all functional, as export wants them.

    Where the export leaves the number of time steps open, they are a loop in the program.
    """
    if not isinstance(projected.shape[0], torch.SymInt):
        return plain_recurrence(projected, state, recurrent_weights, biases, state_mask, activation, update_mask)
    from torch._higher_order_ops.scan import scan  # private so far; nothing else needs it

    def step(s: Tensor, projected_now: Tensor) -> tuple[Tensor, Tensor]:
        s = time_step(s, projected_now, recurrent_weights, biases, state_mask, activation, update_mask)  # (B, H)
        return s, s.clone()

    return scan(step, state, projected)[1]  # (T, B, H)
