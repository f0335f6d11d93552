"""The same results as recurrence.py, with a hand-written backward; read recurrence.py first.

This file connects the computation, which is in fast_kernels.py, with autograd, autocast, `torch.func` and
`torch.compile`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from rhn_torch.fast_kernels import window_backward, window_forward
from rhn_torch.precision import factor_dtype
from rhn_torch.programs.compiled import compiled_recurrence
from rhn_torch.recurrence import plain_recurrence


def fast_recurrence(
    projected: Tensor,
    state: Tensor,
    recurrent_weights: Sequence[Tensor],
    biases: Tensor,
    state_mask: Tensor | None = None,
    activation: str = "tanh",
    update_mask: Tensor | None = None,
    recompute: bool = False,
    padding: Tensor | None = None,
) -> Tensor:
    """Like `plain_recurrence`, but faster and with first derivatives only.

    Within the transforms of `torch.func`, which need plain operations, it calls `plain_recurrence`.

    Under `torch.autocast` the factors of the products are rounded; states, gates and gradients keep their dtype.

    Args:
        projected, state, recurrent_weights, biases, activation, padding: see `plain_recurrence`.
        state_mask, update_mask: see `plain_recurrence`; not differentiable here.
        recompute: for the backward, keep `projected` and the states but not the gates, and compute the gates again,
            with one matrix product per micro-step. The result is exact. It takes a little more time, and less memory.

    Returns:
        (T, B, H).

    Raises:
        ValueError: a mask requires a gradient.
        RuntimeError: at backward, if a second derivative is asked for.
    """
    for name, mask in (("state_mask", state_mask), ("update_mask", update_mask)):
        if mask is not None and mask.requires_grad:
            raise ValueError(f"{name} requires a gradient, which fast_recurrence does not give: use plain_recurrence")
    if torch._C._are_functorch_transforms_active():
        return plain_recurrence(
            projected, state, recurrent_weights, biases, state_mask, activation, update_mask, padding
        )
    dtype = factor_dtype(biases)
    if dtype != biases.dtype:
        state = state.to(biases.dtype)  # under autocast it may be the product of another layer, in a lower dtype
    inputs = (projected, state, biases, *recurrent_weights)
    needs_backward = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    keep = () if not needs_backward else ("states",) if recompute else ("states", "gates")
    if torch.compiler.is_compiling():
        masks = state_mask, update_mask
        return compiled_recurrence(
            projected, state, recurrent_weights, biases, *masks, activation, padding, dtype, keep
        )
    if needs_backward:
        return _FastRecurrence.apply(activation, keep, dtype, state_mask, update_mask, padding, *inputs)
    weights = [weight.to(dtype) for weight in recurrent_weights]
    return window_forward(projected, state, weights, biases, state_mask, update_mask, activation, keep, padding)[0]


class _FastRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        activation: str,
        keep: Sequence[str],
        dtype_of_factors: torch.dtype,
        state_mask: Tensor | None,
        update_mask: Tensor | None,
        padding: Tensor | None,
        projected: Tensor,
        state: Tensor,
        biases: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        weights = [weight.to(dtype_of_factors) for weight in parameters]
        masks = state_mask, update_mask
        outputs, gates, inner = window_forward(projected, state, weights, biases, *masks, activation, keep, padding)
        ctx.activation = activation
        gates_or_arguments = (gates, None, None) if "gates" in keep else (None, projected, biases)
        ctx.save_for_backward(*masks, state, outputs, inner, *gates_or_arguments, *weights)
        return outputs.clone()  # the caller may change the outputs in place, like the outputs of torch's own layers

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> NoReturn:
        raise RuntimeError("fast_recurrence has no forward derivative: use plain_recurrence (recurrence='plain')")

    @staticmethod
    def backward(ctx: Any, d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("fast_recurrence has no second derivative: use plain_recurrence (recurrence='plain')")
        state_mask, update_mask, state, outputs, inner, gates, projected, biases, *weights = ctx.saved_tensors
        forward = state, outputs, inner, gates, projected, biases, weights, state_mask, update_mask, ctx.activation
        return (None,) * 6 + window_backward(d_outputs, *forward)
