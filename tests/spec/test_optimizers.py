"""The training step of the specification against arithmetic by hand."""

import math

import numpy as np
import pytest

import rhn
from rhn.spec import reference

P = {"a": np.array([1.0, -2.0]), "b": np.array([[0.5]])}
G = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}  # norm 5


def step(optimizer: rhn.Optimizer, state: dict, *, rate: float = 0.1, decay: float = 0.0, max_norm: float = 100.0):
    return reference.update(optimizer, P, G, state, rate, decay, max_norm)


def test_sgd_is_clipped() -> None:
    new, state = step(rhn.Optimizer(), {}, max_norm=2.5)
    np.testing.assert_allclose(new["a"], [1.0 - 0.1 * 1.5, -2.0])
    np.testing.assert_allclose(new["b"], [[0.5 - 0.1 * 2.0]])
    assert state == {}


def test_decoupled_decay_of_sgd_is_torch7s() -> None:
    new, _ = step(rhn.Optimizer(decoupled_weight_decay=True), {}, decay=0.01)
    np.testing.assert_allclose(new["a"], np.array([1.0 - 0.3, -2.0]) * 0.99)  # after the step, not scaled by the rate


def test_adam_first_step_is_the_sign_of_the_gradient() -> None:
    new, state = step(rhn.Optimizer("adam"), {})
    np.testing.assert_allclose(new["a"], [1.0 - 0.1, -2.0], rtol=1e-7)
    assert state["step"] == 1


def test_adam_second_step_by_hand() -> None:
    optimizer = rhn.Optimizer("adam", beta1=0.5, beta2=0.75, epsilon=0.01)
    _, state = step(optimizer, {}, max_norm=2.5)
    new, _ = step(optimizer, state, max_norm=5.0)
    mean = (0.5 * 0.5 * 2.0 + 0.5 * 4.0) / (1 - 0.5**2)  # gradients of b: 2 (clipped), then 4
    square = (0.75 * 0.25 * 4.0 + 0.25 * 16.0) / (1 - 0.75**2)
    np.testing.assert_allclose(new["b"], [[0.5 - 0.1 * mean / (math.sqrt(square) + 0.01)]])


def test_adamw_shrinks_before_the_step() -> None:
    new, _ = step(rhn.Optimizer("adam", decoupled_weight_decay=True), {}, decay=0.5)
    np.testing.assert_allclose(new["a"], [1.0 * 0.95 - 0.1, -2.0 * 0.95], rtol=1e-7)


def test_momentum_is_torchs() -> None:
    optimizer, parameters, state = rhn.Optimizer(momentum=0.5), P, {}
    for _ in range(3):
        parameters, state = reference.update(optimizer, parameters, G, state, 0.1, 0.0, 2.5)
    np.testing.assert_allclose(state["momentum.b"], [[2.0 * (1 + 0.5 + 0.25)]])
    np.testing.assert_allclose(parameters["b"], [[0.5 - 0.1 * 2.0 * (1 + 1.5 + 1.75)]])


def test_entries_are_limited_after_the_norm() -> None:
    new, _ = step(rhn.Optimizer(max_grad_value=1.8), {}, max_norm=2.5)
    np.testing.assert_allclose(new["a"], [1.0 - 0.1 * 1.5, -2.0])
    np.testing.assert_allclose(new["b"], [[0.5 - 0.1 * 1.8]])


def test_averaging_is_the_mean_of_the_weights_since_its_start() -> None:
    optimizer = rhn.Optimizer()
    state: dict = {"averaged_steps": np.array(0)}
    parameters, seen = P, []
    for _ in range(3):
        parameters, state = reference.update(optimizer, parameters, G, state, 0.1, 0.0, 100.0)
        seen.append(parameters["a"])
    assert state["averaged_steps"] == 3
    np.testing.assert_allclose(state["average.a"], np.mean(seen, axis=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "lion"}, "optimizer='lion' is not accepted: expected one of sgd, adam"),
        ({"beta1": 1.0}, "beta1=1.0 is not accepted"),
        ({"epsilon": 0.0}, "epsilon=0.0 is not accepted"),
        ({"momentum": 1.0}, "momentum=1.0 is not accepted"),
        ({"name": "adam", "momentum": 0.5}, "momentum=0.5 is not accepted with optimizer='adam': it is for SGD only"),
        ({"max_grad_value": 0}, "max_grad_value=0 is not accepted"),
        ({"decoupled_weight_decay": 1}, "decoupled_weight_decay=1 is not accepted"),
    ],
)
def test_impossible_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rhn.Optimizer(**options)


def test_the_reference_backend_keeps_its_optimizer_state() -> None:
    config = rhn.RHNConfig(vocab_size=5, hidden_size=3, recurrence_depth=1)
    parameters = rhn.initial_parameters(config, seed=1)
    tokens = np.array([[0, 1, 2]])
    models = [
        rhn.load_backend("reference").build(config, parameters, "float64", optimizer=rhn.Optimizer("adam"))
        for _ in range(2)
    ]
    for model in models:
        model.train_step(tokens, tokens, model.zero_state(1), None, 0.01, 0.0, 1.0)
    fresh = rhn.load_backend("reference").build(
        config, models[0].parameters(), "float64", optimizer=rhn.Optimizer("adam")
    )
    fresh.load_optimizer_state(models[0].optimizer_state())
    for model in (fresh, models[1]):
        model.train_step(tokens, tokens, model.zero_state(1), None, 0.01, 0.0, 1.0)
    for name, value in fresh.parameters().items():
        np.testing.assert_array_equal(value, models[1].parameters()[name])
