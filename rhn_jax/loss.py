"""Softmax layer and cross-entropy in one function, which never needs the logits of a whole window."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from rhn.port_tools import steps_per_slice

# Rows whose logits are computed at once, at least: enough to keep the products efficient.
_CHUNK_ROWS = 256


def cross_entropy(logits: Array, targets: Array) -> Array:
    """Negative log-likelihoods (...) in nats of targets (...) under logits (..., V)."""
    logit_of_target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]  # (...)
    return jax.nn.logsumexp(logits, axis=-1) - logit_of_target


class _Sums(NamedTuple):
    """What is summed over rows: negative log-likelihood (), and its gradients (V, H) and (V,)."""

    nll: Array
    d_weight: Array
    d_bias: Array


@jax.custom_vjp
def softmax_cross_entropy(top: Array, weight: Array, bias: Array, targets: Array, counts: Array | None = None) -> Array:
    """`cross_entropy(top @ weight.T + bias, targets).sum()`, with its gradients.

    With a large vocabulary, the logits are the largest array of a training step. So the rows are processed in chunks,
    and the gradients are computed together with the loss, while the logits of a chunk are there. This takes less
    memory, and less time where XLA gets fresh memory for each step (see `keep_freed_memory` of the backend).

    Args:
        top: (N, H).
        weight: (V, H).
        bias: (V,).
        targets: (N,) integers below V.
        counts: (N,) booleans, whether the row counts; None: all rows count.

    Returns:
        A scalar: negative log-likelihood in nats, summed over the rows.
    """
    return _forward(top, weight, bias, targets, counts)[0]


def _forward(
    top: Array, weight: Array, bias: Array, targets: Array, counts: Array | None
) -> tuple[Array, tuple[Array, Array, Array]]:
    """The loss, and the gradients of top, weight and bias."""
    # A chunk's logits are to be no smaller than the gradient of the weight, to which each chunk adds its part.
    chunk = steps_per_slice(len(top), 1, max(_CHUNK_ROWS, top.shape[1]))
    if chunk == len(top):
        sums, d_top = _of_rows(weight, bias, top, targets, counts)
        return sums.nll, (d_top, sums.d_weight, sums.d_bias)

    def add_chunk(sums: _Sums, rows: tuple[Array, Array, Array | None]) -> tuple[_Sums, Array]:
        of_chunk, d_top = _of_rows(weight, bias, *rows)
        return jax.tree.map(jnp.add, sums, of_chunk), d_top

    nothing = _Sums(jnp.zeros((), bias.dtype), jnp.zeros_like(weight), jnp.zeros_like(bias))
    chunks = jax.tree.map(lambda array: array.reshape(-1, chunk, *array.shape[1:]), (top, targets, counts))
    sums, d_top = lax.scan(add_chunk, nothing, chunks)
    return sums.nll, (d_top.reshape(top.shape), sums.d_weight, sums.d_bias)


def _of_rows(weight: Array, bias: Array, top: Array, targets: Array, counts: Array | None) -> tuple[_Sums, Array]:
    """The sums over the rows, and the gradient of top."""
    targets = targets[:, None]  # (N, 1)
    logits = jnp.tensordot(top, weight, axes=(1, 1)) + bias  # (N, V)
    largest = logits.max(axis=1, keepdims=True)  # (N, 1)
    logit_of_target = jnp.take_along_axis(logits, targets, axis=1)  # (N, 1)
    exponentials = jnp.exp(logits - largest)  # (N, V)
    normaliser = exponentials.sum(axis=1, keepdims=True)  # (N, 1)
    nll = jnp.log(normaliser) + largest - logit_of_target  # (N, 1)
    # A comparison takes the place of an array of zeros and ones, which would be of the size of the logits.
    d_logits = exponentials / normaliser - (jnp.arange(len(bias)) == targets)  # (N, V)
    if counts is not None:
        nll, d_logits = (jnp.where(counts[:, None], array, 0) for array in (nll, d_logits))
    d_weight = jnp.tensordot(d_logits, top, axes=(0, 0))  # (V, H)
    return _Sums(nll.sum(), d_weight, d_logits.sum(axis=0)), d_logits @ weight


def _backward(gradients: tuple[Array, Array, Array], d_loss: Array) -> tuple[Array | None, ...]:
    return *(d_loss * gradient for gradient in gradients), None, None


softmax_cross_entropy.defvjp(_forward, _backward)
