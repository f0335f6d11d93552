"""Sequences of different lengths in one batch, and the reverse direction (SPEC.md 7.2 and 7.3).

The recurrence knows neither. It reads padding like input. Since padding comes after a row's last valid time step, no
valid result depends on it. This module removes the padding from outputs, states and gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rhn.spec.arguments import refusal
from rhn.spec.masks import VariationalMasks


def length_tensor(lengths: Tensor | Sequence[int], length: int, batch_size: int, device: torch.device) -> Tensor:
    """`lengths` as int64 (B,) on the device.

    Their values are checked only where the check does not wait for a device: on a CPU, outside of compiled programs.

    Raises:
        ValueError: they are not B integers from 0 to T.
    """
    tensor = torch.as_tensor(lengths)
    if tuple(tensor.shape) != (batch_size,) or (batch_size and tensor.is_floating_point()):
        raise ValueError(
            f"lengths of shape {tuple(tensor.shape)} and dtype {tensor.dtype} are not accepted: expected"
            f" ({batch_size},) integers, one per row"
        )
    can_be_read = tensor.device.type == "cpu" and not torch.compiler.is_compiling() and not torch.jit.is_tracing()
    if can_be_read and batch_size and not 0 <= int(tensor.min()) <= int(tensor.max()) <= length:
        raise refusal("lengths", tensor.tolist(), f"integers from 0 to {length}, the time steps of the input")
    return tensor.to(device, torch.int64)


def valid_steps(lengths: Tensor, length: int) -> Tensor:
    """(T, B, 1): whether the time step is one of the row's sequence."""
    return (torch.arange(length, device=lengths.device).unsqueeze(1) < lengths).unsqueeze(-1)


def without_padding(x: Tensor, valid: Tensor | None) -> Tensor:
    """x (T, B, features) with zeros in place of the padding, which gets no gradient."""
    return x if valid is None else torch.where(valid, x, 0)


def in_reading_order(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x (T, B, features) as the reverse direction reads it; the same function puts its outputs in the order of time.

    The valid steps of a row are reversed; its padding stays where it is.
    """
    if lengths is None:
        return x.flip(0)
    time = torch.arange(x.shape[0], device=x.device).unsqueeze(1)  # (T, 1)
    source = torch.where(time < lengths, lengths - 1 - time, time)  # (T, B)
    return x.gather(0, source.unsqueeze(-1).expand_as(x))


def last_states(outputs: Tensor, state: Tensor | None, lengths: Tensor | None) -> Tensor:
    """The state (B, H) after each row's last valid step, from the outputs (T, B, H) in reading order.

    A row without valid steps keeps the state (B, H) before the window; None is zero.
    """
    if lengths is None:
        return outputs[-1]
    time = (lengths - 1).clamp(min=0).view(1, -1, 1).expand(1, -1, outputs.shape[2])  # (1, B, H)
    last = outputs.gather(0, time).squeeze(0)  # (B, H)
    before = torch.zeros_like(last) if state is None else state.to(last.dtype)
    return torch.where((lengths > 0).unsqueeze(-1), last, before)


def permute_rows(
    hx: Tensor | None, masks: VariationalMasks | None, order: Tensor | None
) -> tuple[Tensor | None, VariationalMasks | None]:
    """States (cells, B, H) and masks (M, B, features) or (B, features) with their rows in that order (B,).

    None changes nothing.
    """
    if order is None:
        return hx, masks

    def permuted(mask: Any) -> Tensor:
        tensor = torch.as_tensor(mask)
        rows = 0 if tensor.dim() == 2 else 1  # the axis
        return tensor.index_select(rows, order.to(tensor.device))

    return None if hx is None else hx.index_select(1, order), None if masks is None else masks.map(permuted)
