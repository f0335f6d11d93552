"""The recurrence for exported programs (`torch.export`, ONNX) and traced programs."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence

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
    padding: Tensor | None = None,
) -> Tensor:
    """As `plain_recurrence`: export needs operations that change nothing in place. `padding` is not used here.

    If the export leaves the number of time steps open, the program has a loop over them. A traced program is for the
    number with which it was traced, and refuses any other.
    """
    if torch.jit.is_tracing() and not torch.onnx.is_in_onnx_export():
        projected = _length_check()(projected, int(projected.shape[0]))
    if not isinstance(projected.shape[0], torch.SymInt):
        return plain_recurrence(projected, state, recurrent_weights, biases, state_mask, activation, update_mask)
    from torch._higher_order_ops.scan import scan  # private so far; nothing else needs it

    def step(s: Tensor, projected_now: Tensor) -> tuple[Tensor, Tensor]:
        s = time_step(s, projected_now, recurrent_weights, biases, state_mask, activation, update_mask)  # (B, H)
        return s, s.clone()

    return scan(step, state, projected)[1]  # (T, B, H)


def _is_of_length(projected: Tensor, length: int) -> Tensor:
    """`projected` (T, B, G*H); ValueError unless T is `length`."""
    if projected.shape[0] != length:
        raise ValueError(
            f"input of {projected.shape[0]} time steps is not accepted by a program traced with {length}: trace it with"
            " yours, or use torch.export, which leaves their number open"
        )
    return projected


@functools.cache
def _length_check() -> Callable[[Tensor, int], Tensor]:
    """`_is_of_length` in TorchScript: a trace keeps no check that Python makes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # traces are deprecated too, and need it
        return torch.jit.script(_is_of_length)
