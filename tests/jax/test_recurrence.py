"""The plain recurrence against the equations, spelled out in NumPy for one row and one unit at a time."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from rhn_jax import plain_recurrence
from rhn_jax.recurrence import ACTIVATION, masked_linear, micro_step, time_step

T, B, H, L = 3, 2, 4, 2

pytestmark = pytest.mark.usefixtures("float64")


def sigmoid(x: NDArray) -> NDArray:
    return 1 / (1 + np.exp(-x))


NUMPY_ACTIVATION = {"tanh": np.tanh, "sigmoid": sigmoid, "relu": lambda x: np.maximum(x, 0)}


def normal(*shape: int) -> NDArray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


@pytest.mark.parametrize("activation", ACTIVATION)
@pytest.mark.parametrize("num_gates", [2, 3])
def test_micro_step_is_the_equations(num_gates: int, activation: str) -> None:
    s, z = normal(B, H), normal(B, num_gates * H)
    h, t = NUMPY_ACTIVATION[activation](z[:, :H]), sigmoid(z[:, H : 2 * H])
    c = sigmoid(z[:, 2 * H :]) if num_gates == 3 else 1 - t
    actual = micro_step(jnp.asarray(s), jnp.asarray(z), ACTIVATION[activation])
    np.testing.assert_allclose(actual, h * t + s * c, rtol=0, atol=1e-15)


@pytest.mark.parametrize("num_masks", [0, 1, 3])
def test_masked_linear_has_a_mask_for_each_gate(num_masks: int) -> None:
    x, weight = normal(B, 5), normal(5, 3 * H)
    masks = np.random.default_rng(0).integers(0, 2, (num_masks, B, 5)) * 2.0
    of_gates = [1.0] * 3 if num_masks == 0 else [masks[gate % num_masks] for gate in range(3)]
    expected = np.concatenate([(x * m) @ w for m, w in zip(of_gates, np.split(weight, 3, axis=1), strict=True)], axis=1)
    actual = masked_linear(jnp.asarray(x), jnp.asarray(weight), jnp.asarray(masks) if num_masks else None)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-14)


def test_the_input_is_added_at_the_first_micro_step_only() -> None:
    s, projected, bias = (jnp.asarray(normal(*shape)) for shape in ((B, H), (B, 2 * H), (L, 2 * H)))
    weights = [jnp.asarray(normal(H, 2 * H)), jnp.asarray(normal(H, 2 * H) + 1)]
    first = micro_step(s, s @ weights[0] + bias[0] + projected, jnp.tanh)
    second = micro_step(first, first @ weights[1] + bias[1], jnp.tanh)
    np.testing.assert_allclose(time_step(s, projected, weights, bias), second, rtol=0, atol=1e-14)


def test_plain_recurrence_is_its_time_steps() -> None:
    s, projected, bias = (jnp.asarray(normal(*shape)) for shape in ((B, H), (T, B, 2 * H), (L, 2 * H)))
    weights, mask = [jnp.asarray(normal(H, 2 * H))] * L, jnp.asarray([[[2.0, 0, 2, 2], [0, 2, 0, 2]]])
    outputs = plain_recurrence(projected, s, weights, bias, mask, "relu")
    for time in range(T):
        s = time_step(s, projected[time], weights, bias, mask, "relu")
        np.testing.assert_allclose(outputs[time], s, rtol=0, atol=1e-14)
