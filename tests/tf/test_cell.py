"""RHNCell as a Keras cell."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from rhn_tf import RHN, RHNCell

X = np.random.default_rng(1).standard_normal((3, 5, 4)).astype(np.float32)  # (B, T, E)
TOLERANCE = 1e-6  # the same sums in another order, float32


def test_works_inside_keras_rnn_and_equals_the_layer() -> None:
    layer = RHN(6, 3, return_sequences=True, return_state=True)
    expected, expected_state = layer(X)  # (B, T, H), (B, H)
    cell = RHNCell(6, 3)
    rnn = keras.layers.RNN(cell, return_sequences=True, return_state=True)
    rnn.build(X.shape)
    cell.set_weights(layer.cells[0].get_weights())
    output, state = rnn(X)
    np.testing.assert_allclose(output, expected, atol=TOLERANCE)
    np.testing.assert_allclose(state, expected_state, atol=TOLERANCE)


def test_stacks_and_runs_both_ways_inside_keras_rnn() -> None:
    assert keras.layers.RNN([RHNCell(6, 2), RHNCell(5, 2)])(X).shape == (3, 5)
    assert keras.layers.Bidirectional(keras.layers.RNN(RHNCell(6, 2)))(X).shape == (3, 12)


def test_padding_masks_work_through_keras_rnn() -> None:
    rnn = keras.layers.RNN(RHNCell(6, 2))
    seen = np.array([[True, True, True, False, False]] * 3)  # (B, T)
    np.testing.assert_allclose(rnn(X, mask=seen), rnn(X[:, :3]), atol=TOLERANCE)


def test_masks_multiply_what_the_gates_see() -> None:
    cell = RHNCell(6, 2, couple_gates=False)
    state = tf.random.normal((3, 6), seed=1)
    zeros = np.zeros((1, 3, 4)), np.zeros((3, 3, 6))
    output, (new_state,) = cell(X[:, 0], [state], input_mask=zeros[0], state_mask=zeros[1])
    assert output is new_state
    np.testing.assert_allclose(output, cell(0 * X[:, 0], [state], state_mask=zeros[1])[0], atol=TOLERANCE)

    s, bias = state, tf.convert_to_tensor(cell.bias)  # with nothing to see, the gates are their biases
    for step in range(2):
        h, t, c = tf.split(bias[step], 3)
        s = tf.tanh(h) * tf.sigmoid(t) + s * tf.sigmoid(c)
    np.testing.assert_allclose(output, s, atol=TOLERANCE)


def test_states_come_back_as_they_were_given() -> None:
    cell = RHNCell(6, 2)
    _, state = cell(X[:, 0], tf.zeros((3, 6)))
    assert tf.is_tensor(state)
    (zero,) = cell.get_initial_state(batch_size=3)
    assert zero.shape == (3, 6)
    assert cell.state_size == cell.output_size == 6


def test_initial_values() -> None:
    cell = RHNCell(50, 3, couple_gates=False, init_scale=0.1, transform_bias=-4.0)
    cell.build((None, 4))
    input_weight, *recurrent_weights, bias = cell.get_weights()
    h, t, c = np.split(bias, 3, axis=1)  # (L, H) each
    assert (t == -4.0).all()
    for values in (h, c, *recurrent_weights, input_weight):
        assert 0.09 < np.abs(values).max() < 0.1
        assert abs(values.mean()) < 0.02
    assert not np.array_equal(recurrent_weights[0], recurrent_weights[1])


def test_config_round_trip() -> None:
    cell = RHNCell(
        6,
        3,
        couple_gates=False,
        activation="relu",
        init_scale=0.1,
        transform_bias=-4.0,
        matmul_dtype="bfloat16",
        name="deep",
    )
    again = keras.layers.deserialize(keras.layers.serialize(cell))
    assert isinstance(again, RHNCell)
    assert again.get_config() == cell.get_config()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": 0}, "units=0 is not accepted: expected an integer of at least 1"),
        ({"recurrence_depth": 0}, "recurrence_depth=0 is not accepted: expected an integer of at least 1"),
        ({"matmul_dtype": "int8"}, "matmul_dtype='int8' is not accepted: expected one of None, bfloat16, float16"),
        ({"activation": "gelu"}, "activation='gelu' is not accepted: expected one of tanh, sigmoid, relu"),
        ({"init_scale": -1}, "init_scale=-1 is not accepted: expected a number of at least 0"),
    ],
)
def test_bad_options_say_what_is_accepted(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RHNCell(**({"units": 6, "recurrence_depth": 2} | options))
