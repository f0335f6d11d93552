"""Sequences of different lengths: Keras' masks."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from layers_tf import MASK, STATE, TOLERANCE, X
from numpy.typing import NDArray

from rhn_tf import RHN, RHNCell


@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("option", [None, "go_backwards", "zero_output_for_mask", "unroll"])
def test_masks_mean_what_they_mean_to_keras_rnn(option: str | None, return_sequences: bool) -> None:
    options = {"return_sequences": return_sequences, "return_state": True} | ({option: True} if option else {})
    layer = RHN(5, 3, init_scale=0.5, **options)
    actual = layer(X, initial_state=[STATE], mask=MASK)
    rnn = layers.RNN(RHNCell(5, 3), **options)
    rnn.build(X.shape)
    rnn.cell.set_weights(layer.cells[0].get_weights())
    for mine, of_keras in zip(actual, rnn(X, initial_state=[STATE], mask=MASK), strict=True):
        np.testing.assert_allclose(mine, of_keras, atol=TOLERANCE)


@pytest.mark.parametrize("recurrence", ["fast", "plain", "recompute"])
def test_nothing_depends_on_the_padding(recurrence: str) -> None:
    layer = RHN(5, 2, 2, recurrence=recurrence, return_sequences=True)
    layer.build(X.shape)
    results = []
    for padding in (0.0, np.nan):
        x = tf.constant(np.where(MASK[:, :, None], X, padding).astype(np.float32))
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = layer(x, mask=MASK)
            loss = tf.reduce_sum(output**2)
        results.append([output, *tape.gradient(loss, [x, *layer.trainable_variables])])
    for zeros, nans in zip(*results, strict=True):
        np.testing.assert_array_equal(zeros, nans)
    assert not np.any(results[0][1].numpy()[~MASK])


@pytest.mark.parametrize("before", ["masking", "embedding"])
def test_a_mask_comes_from_the_layer_before_and_reaches_the_next(before: str) -> None:
    if before == "masking":
        first: Any = layers.Masking()
        x = np.where(MASK[:, :, None], X, 0)
    else:
        first = layers.Embedding(9, 3, mask_zero=True)
        x = np.where(MASK, 1 + np.arange(6), 0)
    model = keras.Sequential([first, RHN(5, 2, return_sequences=True), RHN(4, 2)])
    output = model(x)
    embedded = first(x)
    below, above = model.layers[1:]
    expected = above(below(tf.convert_to_tensor(embedded.numpy()), mask=MASK), mask=MASK)
    np.testing.assert_allclose(output, expected, atol=TOLERANCE)
    assert np.abs(expected - above(below(embedded.numpy()))).max() > 1e-5
    more = np.pad(x, [(0, 0), (0, 30)] + [(0, 0)] * (x.ndim - 2))
    np.testing.assert_allclose(model(more), output, atol=TOLERANCE)


def test_a_classifier_of_padded_sequences_learns() -> None:
    """Whether the first token of 5 to 20 is large, with padding, both directions and dropout."""
    keras.utils.set_random_seed(1)
    generator = np.random.default_rng(1)

    def sample(count: int) -> tuple[NDArray, NDArray]:
        tokens = generator.integers(1, 20, (count, 20))
        valid = np.arange(20) < generator.integers(5, 21, (count, 1))
        return np.where(valid, tokens, 0), tokens[:, 0] >= 10

    model = keras.Sequential(
        [
            layers.Embedding(20, 16, mask_zero=True),
            layers.Bidirectional(RHN(16, 3, drop_input=0.1, drop_state=0.1)),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    model.fit(*sample(1000), batch_size=50, epochs=4, verbose=0)
    assert model.evaluate(*sample(300), verbose=0)[1] > 0.95
