"""Variational dropout that a layer draws by itself."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from layers_tf import STATE, TOLERANCE, X

import rhn
from rhn_tf import RHN, RHNCell


def drop_rate(layer: RHN, which: str) -> float:
    """Share of zeros in what a layer of ones sees, where every unit has its own output."""
    mask = layer.cells[0].draw_mask(getattr(layer, which), tf.ones((50, 40)))
    return float(np.mean(mask.numpy() == 0))


def test_masks_are_drawn_while_training_and_only_then() -> None:
    layer = RHN(5, 2, drop_input=0.3, drop_state=0.5, init_scale=0.5, return_sequences=True)
    layer.build(X.shape)
    plain = RHN(5, 2, return_sequences=True)
    plain.load_parameters(layer.export_parameters())
    np.testing.assert_array_equal(layer(X), plain(X))
    np.testing.assert_array_equal(layer(X, training=True, masks=rhn.VariationalMasks()), plain(X))
    assert np.abs(layer(X, training=True) - layer(X, training=True)).max() > 1e-3
    assert drop_rate(layer, "drop_input") == pytest.approx(0.3, abs=0.05)
    assert drop_rate(layer, "drop_state") == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("share_gate_masks", [True, False])
def test_one_mask_serves_the_whole_sequence(share_gate_masks: bool) -> None:
    options: dict[str, Any] = {
        "dropout": 0.5,
        "recurrent_dropout": 0.5,
        "drop_update": 0.5,
        "share_gate_masks": share_gate_masks,
        "seed": 3,
    }
    layer = RHN(5, 3, init_scale=0.5, **options)
    layer.build(X.shape)
    cell = layer.cells[0]
    masks = [cell.draw_mask(0.5, X[:, 0]), cell.draw_mask(0.5, STATE)]
    update_mask = cell.draw_update_mask(STATE)
    assert update_mask.shape == STATE.shape
    assert [mask.shape[0] for mask in masks] == [1 if share_gate_masks else 2] * 2
    assert set(np.unique(masks[0])) == {0.0, 2.0}
    expected = layer(X, masks=rhn.VariationalMasks(input=masks[:1], state=masks[1:], update=[update_mask]))

    again = RHN.from_config(layer.get_config())
    again.build(X.shape)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(X, training=True), expected)

    rnn = layers.RNN(RHNCell(5, 3, **options))
    rnn.build(X.shape)
    rnn.cell.set_weights(cell.get_weights())
    np.testing.assert_allclose(rnn(X, training=True), expected, atol=TOLERANCE)
    assert np.abs(rnn(X, training=True) - expected).max() > 1e-3  # drawn anew for the next sequence


def test_layers_of_a_stack_draw_different_masks_from_one_seed() -> None:
    first, second = RHN(5, 2, 2, drop_state=0.5, seed=1).cells
    assert np.any(first.draw_mask(0.5, tf.ones((9, 5))) != second.draw_mask(0.5, tf.ones((9, 5))))


def test_two_names_of_one_rate() -> None:
    layer = RHN(5, 2, dropout=0.1, recurrent_dropout=0.2)
    assert (layer.drop_input, layer.drop_state) == (0.1, 0.2)
    assert (layer.cells[0].dropout, layer.cells[0].recurrent_dropout) == (0.1, 0.2)
    with pytest.raises(ValueError, match=r"dropout=0.2 is not accepted with drop_input=0.1: expected one of these two"):
        RHN(5, 2, drop_input=0.1, dropout=0.2)
    with pytest.raises(ValueError, match=r"recurrent_dropout=1.0 is not accepted: expected a number from 0 up to"):
        RHN(5, 2, recurrent_dropout=1.0)


def test_dropout_in_a_compiled_stack_of_cells() -> None:
    cells = [RHNCell(5, 2, dropout=0.2, recurrent_dropout=0.2), RHNCell(4, 2, dropout=0.2)]
    model = keras.Sequential([layers.RNN(cells), layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=True)
    assert np.isfinite(model.fit(X, np.ones((4, 1)), verbose=0).history["loss"]).all()
