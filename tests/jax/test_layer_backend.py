"""Layers against the reference (SPEC.md section 7): outputs, states and all gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import name_of, relative_error
from numpy.typing import NDArray

import rhn
from rhn.backend import LayerBackend
from rhn.spec.layers import LayerConfig, layer_parameter_shapes
from rhn_jax.backend import JaxBackend

TOLERANCE = {"float64": 1e-10, "float32": 2e-5}  # relative to the largest entry; measured 3e-15 and 6e-7

B, T, E, H = 4, 5, 3, 4
LENGTHS = np.array([0, 2, T, 1])
# Every direction, depth, kind of gate and mask at least once.
CASES: list[dict[str, Any]] = [
    {"recurrence_depth": 1},
    {"num_layers": 2, "couple_gates": False, "share_gate_masks": False},
    {"directions": "reverse", "num_layers": 2, "share_gate_masks": False},
    {"directions": "both", "num_layers": 2, "couple_gates": False},
    {"directions": "both", "activation": "relu"},
]


def make_arguments(config: LayerConfig) -> tuple[dict[str, NDArray], list[NDArray], rhn.VariationalMasks]:
    generator = np.random.default_rng(1)
    parameters = {n: 0.6 * generator.standard_normal(shape) for n, shape in layer_parameter_shapes(config).items()}
    cells, masks = list(config.cells()), config.num_gate_masks
    state = [generator.standard_normal((B, H)) for _ in cells]
    drawn = rhn.VariationalMasks(
        input=[2.0 * (generator.random((masks, B, cell.input_size)) < 0.5) for cell in cells],
        state=[2.0 * (generator.random((masks, B, H)) < 0.5) for _ in cells],
    )
    return parameters, state, drawn


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("options", CASES, ids=name_of)
def test_everything_matches_the_reference(options: dict[str, Any], dtype: str) -> None:
    config = LayerConfig(E, H, **{"recurrence_depth": 2, **options})
    parameters, state, masks = make_arguments(config)
    generator = np.random.default_rng(2)
    x, d_outputs = generator.standard_normal((B, T, E)), generator.standard_normal((B, T, config.output_size))
    d_state = [generator.standard_normal((B, H)) for _ in state]
    padded = np.where(np.arange(T)[:, None] < LENGTHS[:, None, None], x, np.nan)  # which nothing may read
    layer = JaxBackend().build_layer(config, parameters, dtype, "cpu")
    reference = rhn.load_backend("reference")
    assert isinstance(reference, LayerBackend)
    expected_of = reference.build_layer(config, parameters, "float64")

    errors = {}
    for name, data, lengths, given in (
        ("padded", padded, LENGTHS, (state, masks)),
        ("full", x, None, (None, None)),
    ):
        outputs, last = layer.forward(data, given[0], lengths, given[1])
        expected_outputs, expected_last = expected_of.forward(data, given[0], lengths, given[1])
        of_parameters, d_x, d_initial = layer.gradients(data, d_outputs, d_state, given[0], lengths, given[1])
        expected, expected_d_x, expected_d_initial = expected_of.gradients(
            data, d_outputs, d_state, given[0], lengths, given[1]
        )
        errors[f"{name}: outputs"] = relative_error(outputs, expected_outputs)
        errors[f"{name}: state"] = relative_error(last, expected_last)
        errors[f"{name}: x"] = relative_error(d_x, expected_d_x)
        errors[f"{name}: initial state"] = relative_error(d_initial, expected_d_initial)
        errors |= {f"{name}: {n}": relative_error(of_parameters[n], g) for n, g in expected.items()}
        assert outputs.dtype == d_x.dtype == dtype
        assert lengths is None or all((d_x[row, length:] == 0).all() for row, length in enumerate(lengths))
    assert {name: error for name, error in errors.items() if not error <= TOLERANCE[dtype]} == {}


def test_keeps_the_protocol_and_gives_back_its_parameters() -> None:
    config = LayerConfig(E, H, 2, 2, "both")
    parameters, _, _ = make_arguments(config)
    backend = JaxBackend()
    assert isinstance(backend, LayerBackend)
    exported = backend.build_layer(config, parameters, "float64").parameters()
    assert list(exported) == list(parameters)
    for name, tensor in parameters.items():
        np.testing.assert_array_equal(exported[name], tensor)


def test_what_does_not_fit_is_refused() -> None:
    config = LayerConfig(E, H, 2)
    parameters, _, _ = make_arguments(config)
    with pytest.raises(ValueError, match=r"missing layers\.0\.bias"):
        JaxBackend().build_layer(config, {n: p for n, p in parameters.items() if not n.endswith("bias")})
    with pytest.raises(ValueError, match="dtype='float16' is not accepted"):
        JaxBackend().build_layer(config, parameters, "float16")
