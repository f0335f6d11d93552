"""RHN within other layers and models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from layers_tf import MASK, TOLERANCE, X

from rhn_tf import RHN, RHNCell


@pytest.mark.parametrize("merge_mode", ["concat", "sum", None])
def test_bidirectional_equals_the_one_of_cells(merge_mode: str | None) -> None:
    options: dict[str, Any] = {"return_sequences": True, "return_state": True}
    wrapped = layers.Bidirectional(RHN(5, 2, init_scale=0.5, **options), merge_mode=merge_mode)
    actual = wrapped(X, mask=MASK)
    of_cells = layers.Bidirectional(layers.RNN(RHNCell(5, 2), **options), merge_mode=merge_mode)
    of_cells.build(X.shape)
    of_cells.set_weights(wrapped.get_weights())
    for mine, of_keras in zip(actual, of_cells(X, mask=MASK), strict=True):
        np.testing.assert_allclose(mine, of_keras, atol=TOLERANCE)


def test_bidirectional_in_a_file(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((None, 3)), layers.Bidirectional(RHN(5, 2, dropout=0.2)), layers.Dense(1)])
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(X), model(X))


def test_time_distributed() -> None:
    inputs = keras.Input((None, 6, 3))
    layer = RHN(5, 2)
    model = keras.Model(inputs, layers.TimeDistributed(layer)(inputs))
    assert model.output_shape == (None, None, 5)
    windows = np.stack([X, X[::-1]], axis=1)  # (B, 2, T, E)
    np.testing.assert_allclose(model(windows), np.stack([layer(X), layer(X[::-1])], axis=1), atol=TOLERANCE)


def test_an_encoder_hands_its_states_to_a_decoder() -> None:
    source, target = keras.Input((None, 3)), keras.Input((None, 2))
    _, *state = RHN(5, 2, 2, return_state=True)(layers.Masking()(source))
    output = RHN(5, 2, 2, return_sequences=True)(target, initial_state=state)
    model = keras.Model([source, target], layers.Dense(1)(output))
    model.compile("sgd", "mse")
    assert np.isfinite(model.fit([X, X[:, 1:, :2]], X[:, 1:, :1], verbose=0).history["loss"]).all()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_padding_and_dropout_in_mixed_precision(policy: str) -> None:
    layer = layers.Bidirectional(RHN(5, 2, dropout=0.1, recurrent_dropout=0.1, dtype=policy), dtype=policy)
    model = keras.Sequential([layers.Masking(), layer, layers.Dense(1, dtype="float32")])
    model.compile("sgd", "mse")
    assert np.isfinite(model.fit(X * MASK[:, :, None], np.ones((4, 1)), verbose=0).history["loss"]).all()
