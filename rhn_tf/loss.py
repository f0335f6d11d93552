"""Cross-entropy of a language model."""

from __future__ import annotations

import tensorflow as tf


def cross_entropy(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Negative log-likelihoods (...) in nats of targets (...) under logits (..., V)."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)
