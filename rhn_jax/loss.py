"""Cross-entropy without a second array of the logits' size."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def cross_entropy(logits: Array, targets: Array) -> Array:
    """Negative log-likelihoods (...) in nats of targets (...) under logits (..., V).

    A comparison selects the target's logit, which XLA fuses into its passes over the logits, forward and backward;
    the derivative of indexing, as in `optax.losses`, scatters into zeros of their size and adds them.
    """
    is_target = jnp.arange(logits.shape[-1]) == targets[..., None]  # (..., V), never in memory
    logit_of_target = jnp.where(is_target, logits, 0).sum(axis=-1)  # (...)
    return jax.nn.logsumexp(logits, axis=-1) - logit_of_target
