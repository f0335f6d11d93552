"""Cross-entropy of a language model."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def log_likelihoods(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Log-likelihoods (...) in nats of targets (...) under logits (..., V)."""
    return -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)


@tf.custom_gradient
def cross_entropy(logits: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple]]:
    """The same with the other sign, and with a gradient that XLA computes in fewer passes.

    With a large vocabulary, the logits are the largest array of a training step. The gradient takes the exponentials
    from the loss, and a comparison takes the place of an array of zeros and ones.
    """
    largest = tf.reduce_max(logits, axis=-1, keepdims=True)  # (..., 1)
    exponentials = tf.exp(logits - largest)  # (..., V)
    normaliser = tf.reduce_sum(exponentials, axis=-1, keepdims=True)  # (..., 1)
    logit_of_target = tf.gather(logits, targets, batch_dims=targets.shape.rank)  # (...)

    def gradient(d_loss: tf.Tensor) -> tuple[tf.Tensor, None]:
        d_loss = d_loss[..., tf.newaxis]  # (..., 1)
        d_logits = exponentials * (d_loss / normaliser)  # (..., V)
        is_target = tf.range(tf.shape(logits)[-1]) == targets[..., tf.newaxis]  # (..., V)
        return tf.where(is_target, d_logits - d_loss, d_logits), None

    return tf.squeeze(tf.math.log(normaliser) + largest, axis=-1) - logit_of_target, gradient
