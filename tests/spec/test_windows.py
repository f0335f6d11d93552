"""SPEC.md 3.5, 4.12 and 5.11: windows of changing lengths, and what regularisation adds to their gradients."""

from __future__ import annotations

import numpy as np
import pytest
from cases import make_case

from rhn.spec import reference
from rhn.spec.window_lengths import longest_window, window_length

TERMS = {"activation_regularization": 2.0, "temporal_activation_regularization": 1.5, "length": 3}


def test_lengths_are_those_of_the_rule() -> None:
    lengths = np.array([window_length(1, step, 70, 5.0) for step in range(4000)])
    assert lengths.max() == longest_window(70, 5.0) == 80
    halved = lengths < 52
    assert abs(halved.mean() - 0.05) < 6 * np.sqrt(0.05 * 0.95 / lengths.size)
    assert abs(lengths[~halved].mean() - 69.4) < 0.5  # rounded down, and cut at 80
    assert abs(lengths[halved].mean() - 34.5) < 3
    assert min(window_length(1, step, 6, 5.0) for step in range(200)) == 5


def test_gradients_are_the_derivative_of_the_loss() -> None:
    """By complex-step differentiation along one direction of all parameters."""
    case = make_case(length=5, num_layers=2)
    window = case.tokens, case.targets, case.state, case.masks
    _, gradients, _ = reference.gradients(case.config, case.parameters, *window, 0.01, **TERMS)
    moved = {
        name: value + 1e-30j * np.cos(np.arange(value.size)).reshape(value.shape)
        for name, value in case.parameters.items()
    }
    derivative = reference.loss(case.config, moved, *window, 0.01, **TERMS).imag / 1e-30
    along = sum((g * np.cos(np.arange(g.size)).reshape(g.shape)).sum() for g in gradients.values())
    assert derivative == pytest.approx(along, rel=1e-12)


def test_an_impossible_length_says_so() -> None:
    case = make_case(length=3)
    with pytest.raises(ValueError, match="length=4 is not accepted: expected an integer from 1 to 3"):
        reference.gradients(case.config, case.parameters, case.tokens, case.targets, length=4)
