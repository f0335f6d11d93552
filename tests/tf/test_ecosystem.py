"""The layers in anybody's code: what users of `keras.layers.GRU` do, with `RHN` and `RHNCell` in its place."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

import rhn
from rhn_tf import RHN, RHNCell, RHNLanguageModel

X = np.random.default_rng(1).standard_normal((4, 6, 3)).astype(np.float32)  # (B, T, E)
STATE = np.random.default_rng(2).standard_normal((4, 5)).astype(np.float32)  # (B, H)
# Holes, padding at either end, a row without a valid step, one without padding.
MASK = np.array([[1, 1, 0, 1, 0, 0], [0, 0, 1, 1, 1, 1], [0] * 6, [1] * 6], bool)  # (B, T)
TOLERANCE = 1e-6  # float32
CONFIG = rhn.RHNConfig(vocab_size=7, hidden_size=4, recurrence_depth=2, num_layers=2)


# ---------------------------------------------------------------------------------------------------------------------
# Keras' own suite
# ---------------------------------------------------------------------------------------------------------------------

ALL_OF_KERAS: dict[str, Any] = {  # every argument that SimpleRNN, LSTM and GRU all take
    "use_bias": True,
    "kernel_initializer": "glorot_uniform",
    "recurrent_initializer": "orthogonal",
    "bias_initializer": "zeros",
    "kernel_regularizer": "l2",
    "recurrent_regularizer": "l1",
    "bias_regularizer": "l2",
    "activity_regularizer": "l2",
    "kernel_constraint": "max_norm",
    "recurrent_constraint": "unit_norm",
    "bias_constraint": "max_norm",
    "dropout": 0.1,
    "recurrent_dropout": 0.1,
    "seed": 1,
    "return_sequences": True,
    "go_backwards": True,
    "zero_output_for_mask": True,
}
OUTPUT, SEQUENCES = (3, 3), (3, 2, 3)
SUITE: dict[str, tuple[type, dict[str, Any], tuple[int, ...]]] = {
    "default": (RHN, {"units": 3}, OUTPUT),
    "two layers": (RHN, {"units": 3, "recurrence_depth": 2, "num_layers": 2, "return_sequences": True}, SEQUENCES),
    "unrolled": (RHN, {"units": 3, "recurrence_depth": 2, "unroll": True}, OUTPUT),
    "stateful": (RHN, {"units": 3, "recurrence_depth": 2, "stateful": True}, OUTPUT),
    "everything": (RHN, {"units": 3, "recurrence_depth": 2, **ALL_OF_KERAS}, SEQUENCES),
    "cell": (layers.RNN, {"cell": RHNCell(3, 2, dropout=0.1, recurrent_dropout=0.1)}, OUTPUT),
    "both directions": (layers.Bidirectional, {"layer": RHN(3, 2)}, (3, 6)),
}


class TestSuite(importlib.import_module("keras.src.testing").TestCase):
    """`run_layer_test`: configuration, shapes before there is data, training, mixed precision."""

    def test_layers(self) -> None:
        for name, (layer, options, shape) in SUITE.items():
            with self.subTest(name):
                self.run_layer_test(
                    layer,
                    init_kwargs=options,
                    input_shape=(3, 2, 4),
                    expected_output_shape=shape,
                    supports_masking=True,
                )

    def test_language_model(self) -> None:
        options = {"input_shape": (3, 2), "input_dtype": "int32"}
        self.run_layer_test(
            RHNLanguageModel,
            init_kwargs={"config": CONFIG, "return_state": False},
            expected_output_shape=(3, 2, 7),
            **options,
        )
        # One loss for several outputs, which the suite's training step has, is not Keras' way.
        self.run_layer_test(RHNLanguageModel, init_kwargs={"config": CONFIG}, run_training_check=False, **options)


# ---------------------------------------------------------------------------------------------------------------------
# Padding
# ---------------------------------------------------------------------------------------------------------------------


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


# ---------------------------------------------------------------------------------------------------------------------
# Dropout
# ---------------------------------------------------------------------------------------------------------------------


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


# ---------------------------------------------------------------------------------------------------------------------
# Weights
# ---------------------------------------------------------------------------------------------------------------------


def test_initial_values_are_drawn_for_every_weight() -> None:
    normal = keras.initializers.RandomNormal(seed=1)
    layer = RHN(5, 3, kernel_initializer="ones", recurrent_initializer=normal, bias_initializer="zeros")
    layer.build(X.shape)
    input_weight, *recurrent, bias = layer.get_weights()
    assert (input_weight == 1).all()
    assert len({weight.tobytes() for weight in recurrent}) == 3
    assert (bias[:, :5] == 0).all()
    assert (bias[:, 5:] == -2).all()


def test_regularizers_and_constraints_act_on_their_weights() -> None:
    layer = RHN(5, 2, init_scale=0.5, kernel_regularizer=keras.regularizers.L2(1.0), recurrent_constraint="non_neg")
    layer.build(X.shape)
    (loss,) = layer.losses
    np.testing.assert_allclose(loss, np.sum(layer.cells[0].input_weight.numpy() ** 2), rtol=1e-5)
    constraints = [variable.constraint is not None for variable in layer.trainable_variables]
    assert constraints == [False, True, True, False]


def test_a_layer_without_biases_has_none() -> None:
    layer = RHN(5, 2, 2, use_bias=False)
    layer.build(X.shape)
    assert [weight.shape for weight in layer.weights] == [(3, 10), (5, 10), (5, 10), (5, 10), (5, 10), (5, 10)]
    with_zeros = RHN(5, 2, 2)
    with_zeros.load_parameters(layer.export_parameters())
    np.testing.assert_allclose(layer(X), with_zeros(X), atol=TOLERANCE)


# ---------------------------------------------------------------------------------------------------------------------
# Within other layers and models
# ---------------------------------------------------------------------------------------------------------------------


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


def test_shapes_without_building() -> None:
    layer = RHN(5, 2, 2, return_sequences=True, return_state=True)
    shapes = [tuple(spec.shape) for spec in layer.compute_output_spec(keras.Input((None, 3)))]
    assert shapes == [(None, None, 5), (None, 5), (None, 5)]
    assert not layer.built


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


def test_integers_and_empty_batches_are_inputs() -> None:
    layer = RHN(5, 2)
    np.testing.assert_array_equal(layer(np.ones((2, 3, 4), int)), layer(np.ones((2, 3, 4), np.float32)))
    x = tf.zeros((0, 3, 4))
    with tf.GradientTape() as tape:
        output = layer(x)
    assert output.shape == (0, 5)
    assert all(not np.any(gradient) for gradient in tape.gradient(output, layer.trainable_variables))


def test_other_ranks_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
        RHN(5, 2)(X[0])
    with pytest.raises(ValueError, match="expected ndim=2, found ndim=1"):
        RHNLanguageModel(CONFIG)(np.array([1, 2]))


# ---------------------------------------------------------------------------------------------------------------------
# The language model
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("return_state", [True, False])
def test_fit_with_one_loss(return_state: bool) -> None:
    tokens = np.random.default_rng(1).integers(0, 7, (8, 5))
    model = RHNLanguageModel(CONFIG, return_state=return_state)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss, metrics=["accuracy"])
    losses = model.fit(tokens, tokens, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    logits = model(tokens)[0] if return_state else model(tokens)
    scored, accuracy = model.evaluate(tokens, tokens, verbose=0)
    assert scored == pytest.approx(float(loss(tokens, logits)), rel=1e-5)
    assert accuracy == pytest.approx(np.mean(np.argmax(logits, axis=-1) == tokens))


@pytest.mark.parametrize("which", ["best", "last"])
def test_a_model_from_a_checkpoint(which: str, tmp_path: Path) -> None:
    parameters = rhn.initial_parameters(CONFIG, seed=1)
    more = (
        {"state.0": np.zeros((2, 4)), "state.1": np.zeros((2, 4)), "optimizer.averaged_steps": np.array(0)}
        if which == "last"
        else {}
    )
    rhn.save_checkpoint(tmp_path / "model.safetensors", parameters | more, {"config": CONFIG.to_dict()})
    model = RHNLanguageModel.from_checkpoint(tmp_path / "model.safetensors", return_state=False)
    assert model(np.array([[1, 2]])).shape == (1, 2, 7)
    for name, value in model.export_parameters().items():
        np.testing.assert_array_equal(value, parameters[name])


def test_a_model_from_a_folder_with_parameters_in_float16(tmp_path: Path) -> None:
    parameters = {name: value.astype(np.float16) for name, value in rhn.initial_parameters(CONFIG, seed=1).items()}
    rhn.save_checkpoint(tmp_path / "model.safetensors", parameters, {"config": CONFIG.to_dict()})
    for name, value in RHNLanguageModel.from_checkpoint(tmp_path).export_parameters().items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, parameters[name])


def test_a_file_that_holds_no_language_model_says_so(tmp_path: Path) -> None:
    rhn.save_checkpoint(tmp_path / "other.safetensors", {"x": np.zeros(1)}, {})
    with pytest.raises(ValueError, match="holds no language model of this project"):
        RHNLanguageModel.from_checkpoint(tmp_path / "other.safetensors")
