"""Section 4: the Jacobian against differences, and the theorem that the discs rest on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rhn
from rhn.spec.jacobian import gershgorin_discs, time_step_jacobian
from rhn.spec.reference import LayerWeights, layer_forward

SMALL = 1e-6


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
@pytest.mark.parametrize("couple_gates", [True, False])
def test_it_is_what_small_changes_of_the_state_become(couple_gates: bool, activation: str) -> None:
    config = rhn.RHNConfig(5, 4, 3, couple_gates=couple_gates, activation=activation)
    parameters = rhn.initial_parameters(config, seed=3, init_scale=1.0)
    weights = LayerWeights(
        *(parameters[f"layers.0.{name}"].astype(np.float64) for name in ("input_weight", "recurrent_weight", "bias"))
    )
    random = np.random.default_rng(1)
    x, state = random.normal(size=(1, 1, 4)), random.normal(size=(1, 4))
    _, trace = layer_forward(weights, x, state, activation=activation)
    changed = np.concatenate([state + SMALL * np.eye(4), state - SMALL * np.eye(4)])  # (2H, H)
    outputs, _ = layer_forward(weights, np.repeat(x, 8, axis=0), changed, activation=activation)  # (2H, 1, H)
    differences = (outputs[:4, 0] - outputs[4:, 0]) / (2 * SMALL)  # (H, H)
    # Central differences in float64: their own error is about 1e-10.
    np.testing.assert_allclose(time_step_jacobian(weights, trace[0], activation=activation), differences, atol=1e-8)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_every_eigenvalue_lies_in_a_disc(seed: int, size: int) -> None:
    matrix = np.random.default_rng(seed).normal(size=(size, size))
    centres, radii = gershgorin_discs(matrix)
    distances = np.abs(np.linalg.eigvals(matrix)[:, None] - centres)  # (eigenvalues, discs)
    assert (distances <= radii + 1e-9).any(axis=1).all()
