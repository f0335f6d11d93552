"""Layers on their own against the reference: lengths, directions, masks, through the constructors that users call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import relative_error

from rhn.backend import LayerBackend
from rhn.spec.layers import LayerConfig, layer_parameter_shapes, layers_forward, layers_gradients
from rhn.spec.masks import VariationalMasks
from rhn_tf.backend import TensorFlowBackend

TOLERANCE = {"float64": 1e-13, "float32": 1e-5}  # relative to the largest entry; measured 2e-15 and 1e-6
BATCH_SIZE, LENGTH = 4, 5
LENGTHS = np.array([0, 5, 3, 1])


def make_arguments(config: LayerConfig, with_masks: bool) -> dict[str, Any]:
    """Parameters, x, state and masks."""
    generator = np.random.default_rng(1)
    cells = list(config.cells())

    def mask(features: int) -> Any:
        return (generator.random((config.num_gate_masks, BATCH_SIZE, features)) < 0.7) / 0.7

    masks = VariationalMasks(
        input=[mask(cell.input_size) for cell in cells], state=[mask(config.hidden_size) for _ in cells]
    )
    return {
        "parameters": {
            name: generator.standard_normal(shape) / 2 for name, shape in layer_parameter_shapes(config).items()
        },
        "x": generator.standard_normal((BATCH_SIZE, LENGTH, config.input_size)),
        "state": [generator.standard_normal((BATCH_SIZE, config.hidden_size)) for _ in cells],
        "masks": masks if with_masks else None,
    }


CASES: list[dict[str, Any]] = [
    {"num_layers": 2},
    {"num_layers": 2, "couple_gates": False, "share_gate_masks": False, "with_masks": True, "lengths": LENGTHS},
    {"num_layers": 2, "directions": "reverse", "lengths": LENGTHS},
    {"directions": "reverse", "with_masks": True},
    {"num_layers": 2, "directions": "both", "lengths": LENGTHS},
    {"num_layers": 2, "directions": "both", "share_gate_masks": False, "with_masks": True, "lengths": LENGTHS},
    {"directions": "both", "activation": "relu"},
]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("options", CASES, ids=str)
def test_equals_reference(options: dict[str, Any], dtype: str) -> None:
    options = dict(options)
    lengths, with_masks = options.pop("lengths", None), options.pop("with_masks", False)
    config = LayerConfig(input_size=3, hidden_size=4, recurrence_depth=2, **options)
    parameters, x, state, masks = make_arguments(config, with_masks).values()
    layer = TensorFlowBackend().build_layer(config, parameters, dtype, "cpu")
    assert list(layer.parameters()) == list(parameters)

    outputs, new_state = layer.forward(x, state, lengths, masks)
    expected, expected_state = layers_forward(config, parameters, x, state, lengths, masks)
    assert relative_error(outputs, expected) < TOLERANCE[dtype]
    assert relative_error(new_state, expected_state) < TOLERANCE[dtype]

    generator = np.random.default_rng(2)
    weights = generator.standard_normal(expected.shape), [generator.standard_normal(s.shape) for s in expected_state]
    d_parameters, d_x, d_state = layer.gradients(x, *weights, state, lengths, masks)
    gradients = layers_gradients(config, parameters, x, *weights, state, lengths, masks)
    assert d_parameters.keys() == parameters.keys()
    for name, gradient in gradients.parameters.items():
        assert relative_error(d_parameters[name], gradient) < TOLERANCE[dtype], name
    assert relative_error(d_x, gradients.x) < TOLERANCE[dtype]
    assert relative_error(d_state, gradients.state) < TOLERANCE[dtype]


def test_starts_from_zero_where_no_state_is_given() -> None:
    config = LayerConfig(3, 4, 2, directions="both")
    parameters, x, state, _ = make_arguments(config, with_masks=False).values()
    layer = TensorFlowBackend().build_layer(config, parameters, "float64")
    np.testing.assert_array_equal(layer.forward(x)[0], layer.forward(x, [0 * s for s in state])[0])
    assert isinstance(TensorFlowBackend(), LayerBackend)


def test_says_what_does_not_fit() -> None:
    config = LayerConfig(3, 4, 2)
    parameters = make_arguments(config, with_masks=False)["parameters"]
    with pytest.raises(ValueError, match="dtype='float16' is not accepted: expected one of float32, float64"):
        TensorFlowBackend().build_layer(config, parameters, "float16")
    with pytest.raises(ValueError, match=r"missing layers\.0\.reverse\.input_weight"):
        TensorFlowBackend().build_layer(LayerConfig(3, 4, 2, directions="both"), parameters)
