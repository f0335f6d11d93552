"""RHN and RHNCell in place of Keras' own layers and cells: what these take, and Keras' own suite."""

from __future__ import annotations

import importlib
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from layers_tf import CONFIG, TOLERANCE, X

from rhn_tf import RHN, RHNCell, RHNLanguageModel

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
# Input
# ---------------------------------------------------------------------------------------------------------------------


def test_shapes_without_building() -> None:
    layer = RHN(5, 2, 2, return_sequences=True, return_state=True)
    shapes = [tuple(spec.shape) for spec in layer.compute_output_spec(keras.Input((None, 3)))]
    assert shapes == [(None, None, 5), (None, 5), (None, 5)]
    assert not layer.built


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
