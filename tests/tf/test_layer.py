"""RHN as a Keras layer: alone, in models, compiled, in mixed precision."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import make_case

import rhn
from rhn.spec import reference
from rhn_tf import RHN

X = np.random.default_rng(1).standard_normal((4, 5, 3)).astype(np.float32)  # (B, T, E)
TOLERANCE = 1e-6  # the same sums in another order, float32


@pytest.mark.parametrize("masks", ["shared", "separate", "none"])
def test_equals_reference(masks: str) -> None:
    case = make_case(masks=masks, couple_gates=False)
    embedded = case.parameters["embedding"][case.tokens]  # (B, T, E)
    weights = [case.parameters[f"layers.0.{name}"] for name in ("input_weight", "recurrent_weight", "bias")]
    layer_masks = [None if mask is None else mask[0] for mask in (case.masks.input, case.masks.state)]
    expected, _ = reference.layer_forward(reference.LayerWeights(*weights), embedded, case.state[0], *layer_masks)

    layer = RHN(6, 2, couple_gates=False, return_sequences=True, dtype="float64")
    layer.build(embedded.shape)
    input_weight, recurrent_weight, bias = weights  # (G, E, H), (L, G, H, H), (L, G, H)
    layer.set_weights(
        [np.concatenate(input_weight, -1), *(np.concatenate(w, -1) for w in recurrent_weight), bias.reshape(2, -1)]
    )
    output = layer(embedded, initial_state=case.state, masks=case.masks)
    np.testing.assert_allclose(output, expected, atol=1e-12)


def test_what_is_returned() -> None:
    layer = RHN(6, 2, num_layers=2, return_sequences=True, return_state=True)
    output, *state = layer(X)
    assert output.shape == (4, 5, 6)
    assert [s.shape for s in state] == [(4, 6), (4, 6)]
    np.testing.assert_array_equal(output[:, -1], state[-1])
    layer.return_sequences = layer.return_state = False
    np.testing.assert_array_equal(layer(X), state[-1])


def test_shapes_are_known_before_there_is_data() -> None:
    output, state = RHN(6, 2, return_sequences=True, return_state=True)(keras.Input((5, 3)))
    assert output.shape == (None, 5, 6)
    assert state.shape == (None, 6)


def test_state_handed_over_by_hand_continues_the_sequence() -> None:
    layer = RHN(6, 2, num_layers=2, return_sequences=True, return_state=True)
    whole, *_ = layer(X)
    first, *state = layer(X[:, :2])
    second, *_ = layer(X[:, 2:], initial_state=state)
    np.testing.assert_allclose(tf.concat([first, second], axis=1), whole, atol=TOLERANCE)


def test_stateful_layer_continues_the_sequence_until_it_is_reset() -> None:
    layer = RHN(6, 2, num_layers=2, return_sequences=True)
    whole = layer(X)
    stateful = RHN(6, 2, num_layers=2, return_sequences=True, stateful=True)
    stateful.build(X.shape)
    for cell, from_cell in zip(stateful.cells, layer.cells, strict=True):
        cell.set_weights(from_cell.get_weights())
    model = keras.Sequential([keras.Input(batch_shape=(4, None, 3)), stateful])
    parts = [model(X[:, :2]), model(X[:, 2:])]
    np.testing.assert_allclose(tf.concat(parts, axis=1), whole, atol=TOLERANCE)
    stateful.reset_state()
    np.testing.assert_allclose(model(X), whole, atol=TOLERANCE)


def test_one_state_may_come_without_a_list() -> None:
    layer, state = RHN(6, 2), tf.ones((4, 6))
    np.testing.assert_array_equal(layer(X, initial_state=state), layer(X, initial_state=[state]))


def test_trains_in_a_functional_model() -> None:
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, keras.layers.Dense(1)(RHN(8, 2)(inputs)))
    model.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=True)
    targets = X.sum(axis=(1, 2))[:, None]  # (B, 1)
    losses = model.fit(X, targets, epochs=15, batch_size=4, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_trains_in_mixed_precision(policy: str) -> None:
    inputs = keras.Input((5, 3))
    layer = RHN(8, 2, dtype=policy)
    output = layer(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, dtype="float32")(output))
    model.compile(keras.optimizers.SGD(0.05), "mse", jit_compile=False)
    assert np.isfinite(model.fit(X, np.ones((4, 1)), verbose=0).history["loss"]).all()
    assert output.dtype == policy.removeprefix("mixed_")
    assert {weight.dtype for weight in layer.weights} == {"float32"}

    full = RHN(8, 2)
    full.build(X.shape)
    full.set_weights(layer.get_weights())
    # bfloat16 has 8 bits of mantissa: states below 1 are good to 2**-8 or so after ten micro-steps.
    np.testing.assert_allclose(tf.cast(layer(X), tf.float32), full(X), atol=1e-2)


def test_masks_can_be_inputs_of_a_model() -> None:
    inputs, mask = keras.Input((5, 3)), keras.Input(batch_shape=(1, None, 6))
    layer = RHN(6, 2, init_scale=0.5)
    model = keras.Model([inputs, mask], layer(inputs, masks=rhn.VariationalMasks(state=[mask])))
    drop = (np.arange(24).reshape(1, 4, 6) % 3 > 0) * 1.5
    expected = layer(X, masks=rhn.VariationalMasks(state=[drop]))
    np.testing.assert_allclose(model([X, drop]), expected, atol=TOLERANCE)
    assert np.abs(expected - layer(X)).max() > 1e-2


def test_config_round_trip() -> None:
    layer = RHN(
        6,
        3,
        2,
        couple_gates=False,
        activation="sigmoid",
        init_scale=0.1,
        transform_bias=-4.0,
        matmul_dtype="bfloat16",
        recurrence="recompute",
        return_sequences=True,
        return_state=True,
        stateful=True,
        dtype="mixed_bfloat16",
    )
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert isinstance(again, RHN)
    assert again.get_config() == layer.get_config()


def test_bad_options_say_what_is_accepted() -> None:
    with pytest.raises(ValueError, match="num_layers=0 is not accepted: expected an integer of at least 1"):
        RHN(6, 2, 0)
    with pytest.raises(ValueError, match="recurrence='quick' is not accepted: expected one of fast, plain, recompute"):
        RHN(6, 2, recurrence="quick")
    with pytest.raises(ValueError, match="stateful=True is not accepted with a batch size of None"):
        RHN(6, 2, stateful=True)(keras.Input((5, 3)))
    with pytest.raises(ValueError, match=r"initial_state of shapes \[\(4, 6\)\] is not accepted: expected one per"):
        RHN(6, 2, 2)(X, initial_state=[tf.zeros((4, 6))])
    with pytest.raises(ValueError, match=r"initial_state of shapes \[\(4, 5\)\] is not accepted"):
        RHN(6, 2)(X, initial_state=tf.zeros((4, 5)))
    with pytest.raises(ValueError, match=r"sequences of shape \(4, 0, 3\) are not accepted: expected a time step"):
        RHN(6, 2)(X[:, :0])
    with pytest.raises(
        ValueError, match=r"masks.state\[0\] of shape \(1, 1, 6\) is not accepted: expected shape \(1, 4"
    ):
        RHN(6, 2)(X, masks=rhn.VariationalMasks(state=[np.ones((1, 1, 6))]))
    with pytest.raises(ValueError, match=r"masks\.input of 1 entries is not accepted: expected one per layer, 2"):
        RHN(6, 2, 2)(X, masks=rhn.VariationalMasks(input=[np.ones((1, 4, 3))]))
    model = keras.Sequential([keras.Input((None, 3)), RHN(6, 2, unroll=True)])
    with pytest.raises(ValueError, match="unroll=True is not accepted with an unknown number of time steps"):
        tf.function(model).get_concrete_function(tf.TensorSpec((4, None, 3)))
