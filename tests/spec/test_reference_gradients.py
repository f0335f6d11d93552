"""SPEC.md sections 5 and 6: the reference's gradients against derivatives that owe nothing to its backward, and the
update."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from cases import Case, make_case
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference_cases import cases, layer_case, run

from rhn.spec import reference
from rhn.spec.reference import layer_backward, layer_forward

# ---------------------------------------------------------------------------------------------------------------------
# Backward, by complex-step differentiation: d f / d p = Im f(p + ih) / h, without cancellation
# ---------------------------------------------------------------------------------------------------------------------


STEP = 1e-30

GRADIENT_TOLERANCE = 1e-12  # the largest difference in 1000 cases is 1.7e-14


def gradient_error(actual: NDArray, expected: NDArray) -> float:
    """Largest difference, relative to the largest entry. The terms of a gradient are of order 1: where they cancel to
    less than 0.01, the difference is taken relative to that, for the sum cannot be more accurate than its terms."""
    return float(np.abs(actual - expected).max() / max(np.abs(expected).max(), 0.01))


def complex_step(function: Callable[[NDArray], complex], value: NDArray) -> NDArray:
    """Derivative of a scalar function with respect to every entry of `value`; exact also next to the kink of relu."""
    derivative = np.empty_like(value)
    for position in np.ndindex(value.shape):
        moved = value.astype(complex)
        moved[position] += 1j * STEP
        derivative[position] = function(moved).imag / STEP
    return derivative


@settings(max_examples=40)
@given(case=cases(), weight_decay=st.sampled_from([0.0, 0.3]))
def test_every_gradient(case: Case, weight_decay: float) -> None:
    window = (case.tokens, case.targets, case.state, case.masks, weight_decay)
    _, gradients, _ = reference.gradients(case.config, case.parameters, *window)
    assert list(gradients) == list(case.parameters)
    for name, value in case.parameters.items():

        def loss(moved: NDArray, name: str = name) -> complex:
            return reference.loss(case.config, {**case.parameters, name: moved}, *window)

        assert gradient_error(gradients[name], complex_step(loss, value)) < GRADIENT_TOLERANCE, name


@settings(max_examples=40)
@given(case=cases(), seed=st.integers(0, 2**32 - 1))
def test_gradients_of_a_layer_with_respect_to_its_input_and_state(case: Case, seed: int) -> None:
    weights, x, state, *rest = layer_case(case)
    d_outputs = np.random.default_rng(seed).standard_normal((*x.shape[:2], state.shape[1]))  # (B, T, H)
    _, trace = layer_forward(weights, x, state, *rest)
    gradients = layer_backward(weights, x, trace, d_outputs, *rest)

    def loss_of_input(moved: NDArray) -> complex:
        return np.sum(layer_forward(weights, moved, state, *rest)[0] * d_outputs)

    def loss_of_state(moved: NDArray) -> complex:
        return np.sum(layer_forward(weights, x, moved, *rest)[0] * d_outputs)

    assert gradient_error(gradients.x, complex_step(loss_of_input, x)) < GRADIENT_TOLERANCE
    assert gradient_error(gradients.state, complex_step(loss_of_state, state)) < GRADIENT_TOLERANCE


@given(case=cases(), weight_decay=st.floats(0.0, 2.0))
def test_reported_loss_is_without_weight_decay(case: Case, weight_decay: float) -> None:
    reported, _, state = reference.gradients(
        case.config, case.parameters, case.tokens, case.targets, case.state, case.masks, weight_decay
    )
    logits, expected_state = run(case)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))  # (B, T, V)
    picked = np.take_along_axis(log_probabilities, case.targets[:, :, None], axis=-1)  # (B, T, 1)
    # Sums of a dozen numbers of order 1 in another order.
    assert reported == pytest.approx(-picked.sum(axis=1).mean(), rel=1e-12, abs=1e-13)
    np.testing.assert_array_equal(state, expected_state)


# ---------------------------------------------------------------------------------------------------------------------
# Update
# ---------------------------------------------------------------------------------------------------------------------


@given(case=cases(), max_grad_norm=st.floats(1e-3, 1e3), learning_rate=st.floats(0.0, 2.0))
def test_update_clips_the_global_norm(case: Case, max_grad_norm: float, learning_rate: float) -> None:
    _, gradients, _ = reference.gradients(*case[:4], case.state, case.masks, 0.1)
    everything = np.concatenate([g.ravel() for g in gradients.values()])
    norm = math.sqrt(math.fsum(everything**2))
    assert reference.global_norm(gradients) == pytest.approx(norm, rel=1e-14)
    new = reference.sgd_update(case.parameters, gradients, learning_rate, max_grad_norm)
    for name, value in case.parameters.items():
        clipped = gradients[name] * min(1.0, max_grad_norm / norm)
        np.testing.assert_allclose(new[name], value - learning_rate * clipped, rtol=1e-12, atol=1e-14)


def test_gradients_of_repeated_tokens_are_summed_before_the_norm() -> None:
    """One token everywhere, against as many tokens as positions, all embedded alike."""
    case = make_case(tie_weights=False, masks="none")
    alike = {**case.parameters, "embedding": np.ones_like(case.parameters["embedding"])}
    once = case._replace(parameters=alike, tokens=np.arange(case.tokens.size).reshape(case.tokens.shape))
    repeated = once._replace(tokens=np.full_like(case.tokens, 3))
    _, apart, _ = reference.gradients(*once[:4], case.state)
    _, together, _ = reference.gradients(*repeated[:4], case.state)

    summed = np.zeros_like(apart["embedding"])
    summed[3] = apart["embedding"].sum(axis=0)
    np.testing.assert_allclose(together["embedding"], summed, rtol=1e-13, atol=1e-15)
    expected = reference.global_norm({**apart, "embedding": summed})
    assert reference.global_norm(together) == pytest.approx(expected, rel=1e-13)
    assert reference.global_norm(apart) != pytest.approx(expected, rel=1e-3)
