"""examples/gates_and_gradients.py: its Jacobian is the derivative, and its figure can be drawn."""

import sys
from pathlib import Path

import numpy as np
import pytest

import rhn
from rhn.spec.reference import layer_forward

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))
import gates_and_gradients as example  # noqa: E402


def test_the_jacobian_is_the_derivative_of_a_time_step() -> None:
    parameters = rhn.initial_parameters(example.CONFIG, seed=3, init_scale=0.5, transform_bias=-1.0)
    weights = example.weights_of(parameters)
    random = np.random.default_rng(1)
    x = random.normal(size=(1, 1, example.CONFIG.hidden_size))
    state = random.normal(size=(1, example.CONFIG.hidden_size))
    _, (micro_steps,) = layer_forward(weights, x, state)
    jacobian = example.jacobian(weights, micro_steps, row=0)
    for unit in range(example.CONFIG.hidden_size):
        moved = state.astype(complex)
        moved[0, unit] += 1e-30j  # a complex step has no cancellation
        after, _ = layer_forward(weights, x, moved)
        np.testing.assert_allclose(jacobian[unit], after[0, 0].imag / 1e-30, rtol=1e-12, atol=1e-14)


def test_the_figure_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = tmp_path / "figure.svg"
    monkeypatch.setattr(sys, "argv", ["example", "--steps", "12", "--figure", str(figure)])
    example.main()
    assert figure.read_text().startswith("<?xml")
