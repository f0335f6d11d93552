"""Softmax layer and cross-entropy in one function, which needs only one (rows, V) matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rhn.port_tools import rows_per_chunk
from rhn_torch.precision import factor_dtype, product

# Logits that a CPU works on at once, so that they stay in its cache from one operation to the next.
_LOGITS_IN_CACHE = 2**18


def softmax_cross_entropy(
    top: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, counts: Tensor | None = None
) -> Tensor:
    """`F.cross_entropy(F.linear(top, weight, bias), targets, reduction="sum")` in a third of the memory.

    With a large vocabulary, the logits are the largest array of a training step. Here they are overwritten by the
    probabilities, and these by the gradient of the logits, without further copies.

    Under `torch.autocast` the factors of the products are rounded; logits, loss and gradients keep their dtype.

    Args:
        top: (N, H).
        weight: (V, H).
        bias: (V,).
        targets: (N,) integers below V.
        counts: (N,) booleans, whether the row counts; None: all rows count.

    Returns:
        A scalar: negative log-likelihood in nats, summed over the rows.

    Raises:
        RuntimeError: at backward, if a second derivative is asked for.
    """
    if torch._C._are_functorch_transforms_active():  # they take plain operations only
        logits = F.linear(top, weight, bias)  # (N, V)
        if counts is None:
            return F.cross_entropy(logits, targets, reduction="sum")
        return torch.where(counts, F.cross_entropy(logits, targets, reduction="none"), 0).sum()
    if counts is None and not torch.is_grad_enabled() and rows_per_chunk(len(top), len(bias)) < len(top):
        return -log_likelihoods(top, weight, bias, targets).sum()
    return _SoftmaxCrossEntropy.apply(top, weight, bias, targets, counts)


def log_likelihoods(top: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Log-likelihood (N,) in nats of every target; arguments as of `softmax_cross_entropy`.

    At most `MOST_LOGITS` logits are computed at once, because with a large vocabulary a window has too many of them.
    """
    chunk = rows_per_chunk(len(top), len(bias))
    scores = []
    for rows, wanted in zip(top.split(chunk), targets.split(chunk), strict=True):
        logits = F.linear(rows, weight, bias).to(bias.dtype)  # (chunk, V)
        scores.append(logits.gather(1, wanted.unsqueeze(1)).squeeze(1) - logits.logsumexp(dim=1))
    return scores[0] if len(scores) == 1 else torch.cat(scores)


class _SoftmaxCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, top: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, counts: Tensor | None) -> Tensor:
        weight = weight.to(factor_dtype(weight))
        logits = product(top.to(weight.dtype), weight.t(), out=bias.new_empty(len(top), len(bias)))  # (N, V)
        block = max(1, len(top) if logits.is_cuda else _LOGITS_IN_CACHE // len(bias))
        nll_of_blocks = [
            _to_gradient(rows, bias, wanted)
            for rows, wanted in zip(logits.split(block), targets.unsqueeze(1).split(block), strict=True)
        ]
        nll, d_logits = torch.cat(nll_of_blocks), logits  # (N, 1), (N, V)
        if counts is not None:
            nll = torch.where(counts.unsqueeze(1), nll, 0)
            d_logits = d_logits.mul_(counts.unsqueeze(1))
        ctx.save_for_backward(top, weight, d_logits)
        return nll.sum()

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("softmax_cross_entropy has no second derivative: use F.linear and F.cross_entropy")
        top, weight, d_logits = ctx.saved_tensors
        d_bias = d_logits.sum(dim=0).mul_(d_loss)  # (V,)
        factor = d_logits.to(weight.dtype)  # (N, V)
        d_top = product(factor, weight, out=torch.empty_like(top)).mul_(d_loss)  # (N, H)
        d_weight = product(factor.t(), (top * d_loss).to(weight.dtype), out=d_bias.new_empty(weight.shape))  # (V, H)
        return d_top, d_weight, d_bias, None, None


def _to_gradient(logits: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihoods (rows, 1) of targets (rows, 1) in nats; logits (rows, V), without bias, become their
    gradient."""
    logits += bias
    logits -= logits.amax(dim=1, keepdim=True)
    logit_of_target = logits.gather(1, targets)  # (rows, 1)
    probabilities = logits.exp_()
    normaliser = probabilities.sum(dim=1, keepdim=True)  # (rows, 1)
    probabilities /= normaliser
    probabilities.scatter_add_(1, targets, -torch.ones_like(normaliser))  # minus one-hot
    return normaliser.log() - logit_of_target
