"""Layers on their own: lengths, directions, names; derivatives against complex-step differentiation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import rhn
from rhn.backend import LayerBackend
from rhn.spec.layers import (
    DIRECTIONS,
    LayerConfig,
    check_layer_parameters,
    layer_parameter_shapes,
    layers_forward,
    layers_gradients,
)
from rhn.spec.masks import VariationalMasks
from rhn.spec.reference import LayerWeights, layer_forward

B, T, E, H = 4, 3, 2, 3


def numbers(shape: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(shape)


def parameters_of(config: LayerConfig) -> dict[str, NDArray]:
    return {name: 0.7 * numbers(shape, i) for i, (name, shape) in enumerate(layer_parameter_shapes(config).items())}


def masks_of(config: LayerConfig) -> VariationalMasks:
    cells = list(config.cells())
    m = config.num_gate_masks
    return VariationalMasks(
        input=[2.0 * (numbers((m, B, cell.input_size), 50 + i) > 0) for i, cell in enumerate(cells)],
        state=[2.0 * (numbers((m, B, config.hidden_size), 60 + i) > 0) for i, _ in enumerate(cells)],
        update=[2.0 * (numbers((B, config.hidden_size), 80 + i) > 0) for i, _ in enumerate(cells)],
    )


def state_of(config: LayerConfig) -> list[NDArray]:
    return [numbers((B, H), 70 + i) for i, _ in enumerate(config.cells())]


def test_one_layer_over_full_sequences_is_the_layer_of_the_specification() -> None:
    config = LayerConfig(E, H, 2)
    p, x = parameters_of(config), numbers((B, T, E), 9)
    outputs, (last,) = layers_forward(config, p, x)
    expected, _ = layer_forward(LayerWeights(*p.values()), x, np.zeros((B, H)))
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(last, outputs[:, -1])


@pytest.mark.parametrize("directions", DIRECTIONS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_nothing_depends_on_the_padding(directions: str, num_layers: int) -> None:
    config = LayerConfig(E, H, 2, num_layers, directions)
    p, lengths = parameters_of(config), np.array([0, 1, 2, T])
    x, other = numbers((B, T, E), 9), numbers((B, T, E), 9)
    for row, length in enumerate(lengths):
        other[row, length:] = 1e6
    one, two = (layers_forward(config, p, data, state_of(config), lengths) for data in (x, other))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
    for row, length in enumerate(lengths):
        assert (one[0][row, length:] == 0).all()
    for last, before in zip(one[1], state_of(config), strict=True):
        np.testing.assert_array_equal(last[0], before[0])  # length 0: held from the start


def test_the_reverse_direction_reads_the_valid_steps_from_the_last_to_the_first() -> None:
    forward, reverse = LayerConfig(E, H, 2), LayerConfig(E, H, 2, directions="reverse")
    p, x = parameters_of(forward), numbers((1, T, E), 9)
    outputs, (last,) = layers_forward(reverse, p, x, lengths=[2])
    expected, (expected_last,) = layers_forward(forward, p, x[:, 1::-1])
    np.testing.assert_array_equal(outputs[:, :2], expected[:, ::-1])
    np.testing.assert_array_equal(last, expected_last)
    np.testing.assert_array_equal(last, outputs[:, 0])


def test_both_directions_stand_side_by_side_the_forward_one_first() -> None:
    config = LayerConfig(E, H, 2, directions="both")
    p, x, lengths = parameters_of(config), numbers((B, T, E), 9), [3, 2, 1, 0]
    outputs, state = layers_forward(config, p, x, lengths=lengths)
    for number, (directions, prefix) in enumerate((("forward", "layers.0."), ("reverse", "layers.0.reverse."))):
        own = {f"layers.0.{name}": p[prefix + name] for name in ("input_weight", "recurrent_weight", "bias")}
        alone, (last,) = layers_forward(LayerConfig(E, H, 2, directions=directions), own, x, lengths=lengths)
        np.testing.assert_array_equal(outputs[..., number * H : (number + 1) * H], alone)
        np.testing.assert_array_equal(state[number], last)


@settings(max_examples=25, deadline=None)
@given(
    directions=st.sampled_from(DIRECTIONS),
    num_layers=st.integers(1, 2),
    couple_gates=st.booleans(),
    share_gate_masks=st.booleans(),
    lengths=st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B),
)
def test_derivatives_agree_with_complex_steps(
    directions: str, num_layers: int, couple_gates: bool, share_gate_masks: bool, lengths: list[int] | None
) -> None:
    config = LayerConfig(E, H, 2, num_layers, directions, couple_gates, share_gate_masks)
    p, x, state, masks = parameters_of(config), numbers((B, T, E), 9), state_of(config), masks_of(config)
    d_outputs, d_state = numbers((B, T, config.output_size), 10), [numbers((B, H), 80 + i) for i in range(len(state))]

    def scalar(p: dict, x: NDArray, state: list) -> complex:
        outputs, last = layers_forward(config, p, x, state, lengths, masks)
        return (outputs * d_outputs).sum() + sum((s * d).sum() for s, d in zip(last, d_state, strict=True))

    grads = layers_gradients(config, p, x, d_outputs, d_state, state, lengths, masks)
    step = 1e-30j
    along = {name: numbers(value.shape, 90) for name, value in p.items()}
    derivative = scalar({name: value + step * along[name] for name, value in p.items()}, x, state).imag / 1e-30
    assert derivative == pytest.approx(sum((grads.parameters[n] * a).sum() for n, a in along.items()), rel=1e-11)
    along_x = numbers(x.shape, 91)
    assert scalar(p, x + step * along_x, state).imag / 1e-30 == pytest.approx((grads.x * along_x).sum(), rel=1e-11)
    along_s = [numbers(s.shape, 92) for s in state]
    derivative = scalar(p, x, [s + step * a for s, a in zip(state, along_s, strict=True)]).imag / 1e-30
    assert derivative == pytest.approx(sum((g * a).sum() for g, a in zip(grads.state, along_s, strict=True)), rel=1e-11)


def test_the_reference_builds_layers() -> None:
    backend = rhn.load_backend("reference")
    assert isinstance(backend, LayerBackend)
    config = LayerConfig(E, H, 2, 2, "both")
    layer = backend.build_layer(config, parameters_of(config), "float32")
    outputs, state = layer.forward(numbers((B, T, E), 9), lengths=[1, 2, 3, 0])
    assert outputs.dtype == np.float32
    assert len(state) == 4


def test_parameters_that_do_not_fit_are_refused() -> None:
    config = LayerConfig(E, H, 2)
    p = parameters_of(config)
    with pytest.raises(ValueError, match=r"missing layers\.0\.bias"):
        check_layer_parameters(config, {name: value for name, value in p.items() if not name.endswith("bias")})
    with pytest.raises(ValueError, match=r"parameter layers\.0\.bias of shape \(1,\) is not accepted: expected shape"):
        check_layer_parameters(config, {**p, "layers.0.bias": np.zeros(1)})
    with pytest.raises(ValueError, match="directions='sideways' is not accepted: expected one of forward"):
        LayerConfig(E, H, directions="sideways")
