"""Cross-entropy that needs no second array of the size of the logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def cross_entropy(logits: Array, targets: Array) -> Array:
    """Negative log-likelihoods (...) in nats of targets (...) under logits (..., V).

    A comparison selects the logit of the target. XLA fuses it into its passes over the logits, forward and backward.
    The derivative of indexing, as in `optax.losses`, would need another array of the size of the logits.
    """
    is_target = jnp.arange(logits.shape[-1]) == targets[..., None]  # (..., V), never in memory
    logit_of_target = jnp.where(is_target, logits, 0).sum(axis=-1)  # (...)
    return jax.nn.logsumexp(logits, axis=-1) - logit_of_target
