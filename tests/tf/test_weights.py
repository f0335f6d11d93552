"""Parameters of layers by the names of the specification, and masks as tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from keras.layers import Bidirectional

import rhn
from rhn_tf import RHN
from rhn_tf.weights import export_parameters, load_parameters, mask_tensors

X = np.random.default_rng(1).standard_normal((4, 5, 3)).astype(np.float32)  # (B, T, E)


def stack_of_one() -> Sequence[Any]:
    return [RHN(6, 2, num_layers=2, couple_gates=False, return_sequences=True)]


def stack_of_layers() -> Sequence[Any]:
    return [RHN(6, 2, couple_gates=False, return_sequences=True) for _ in range(2)]


def stack_of_both_directions() -> Sequence[Any]:
    return [Bidirectional(RHN(6, 2, return_sequences=True)) for _ in range(2)]


def call(layers: Sequence[Any]) -> tf.Tensor:
    x = X
    for layer in layers:
        x = layer(x)
    return x


@pytest.mark.parametrize("make", [stack_of_one, stack_of_layers, stack_of_both_directions])
def test_parameters_move_into_layers_that_are_not_built(make: Callable[[], Sequence[Any]]) -> None:
    layers, others = make(), make()
    expected = call(layers)
    load_parameters(export_parameters(*layers), *others)
    np.testing.assert_array_equal(call(others), expected)


def test_one_layer_of_two_is_two_layers() -> None:
    layer, others = RHN(6, 2, 2, couple_gates=False, return_sequences=True), stack_of_layers()
    expected = layer(X)
    load_parameters(layer.export_parameters(), *others)
    np.testing.assert_allclose(call(others), expected, atol=1e-6)


def test_names_and_shapes() -> None:
    layers = stack_of_both_directions()
    call(layers)
    shapes = {name: array.shape for name, array in export_parameters(*layers).items()}
    assert list(shapes.items())[:4] == [
        ("layers.0.input_weight", (2, 3, 6)),
        ("layers.0.recurrent_weight", (2, 2, 6, 6)),
        ("layers.0.bias", (2, 2, 6)),
        ("layers.0.reverse.input_weight", (2, 3, 6)),
    ]
    assert shapes["layers.1.reverse.input_weight"] == (2, 12, 6)


def test_a_layer_without_biases_gives_zeros_and_takes_nothing_else() -> None:
    layer = RHN(6, 2, use_bias=False)
    expected = layer(X)
    parameters = layer.export_parameters()
    assert not parameters["layers.0.bias"].any()
    for other in (RHN(6, 2), RHN(6, 2, use_bias=False)):
        other.load_parameters(parameters)
        np.testing.assert_allclose(other(X), expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"layers\.0\.bias is not accepted with use_bias=False: expected zeros"):
        layer.load_parameters(parameters | {"layers.0.bias": np.ones((2, 2, 6))})


def test_bfloat16_parameters_leave_as_float32() -> None:
    layer = RHN(6, 2, dtype="bfloat16")
    layer(X)
    parameters = layer.export_parameters()
    assert {array.dtype for array in parameters.values()} == {np.dtype("float32")}
    other = RHN(6, 2, dtype="bfloat16")
    other.load_parameters(parameters)
    np.testing.assert_array_equal(tf.cast(other(X), tf.float32), tf.cast(layer(X), tf.float32))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [RHN(5, 2)],
            r"parameter layers\.0\.input_weight of shape \(2, 3, 6\) is not accepted: expected shape \(2, 3, 5",
        ),
        ([RHN(6, 2, 2)], r"missing layers\.1\.input_weight"),
        (
            [Bidirectional(RHN(6, 2, 2))],
            "num_layers=2 is not accepted within Bidirectional: expected one Bidirectional",
        ),
        ([RHN(6, 2), RHN(5, 2)], "layers of different sizes or directions are not accepted: expected all of one kind"),
        ([RHN(6, 2), Bidirectional(RHN(6, 2))], "layers of different sizes or directions are not accepted"),
    ],
)
def test_parameters_that_do_not_fit_say_so(layers: Sequence[Any], message: str) -> None:
    layer = RHN(6, 2)
    layer.build((None, None, 3))
    with pytest.raises(ValueError, match=message):
        load_parameters(layer.export_parameters(), *layers)
    assert not any(layer.built for layer in layers)


def test_masks_become_tensors_once() -> None:
    masks = rhn.VariationalMasks(input=[np.ones((1, 4, 3))], output=np.zeros((4, 6)))
    tensors = mask_tensors(masks, "float32")
    assert tensors.input[0].dtype == tensors.output.dtype == tf.float32
    assert mask_tensors(tensors, "float32").output is tensors.output
    assert mask_tensors(None, "float32") == rhn.VariationalMasks()
