"""The optimisers against the reference, and what they remember."""

from __future__ import annotations

import numpy as np
import pytest
from cases import make_case, relative_error
from numpy.typing import NDArray

from rhn.backend import Model
from rhn.reference_backend import ReferenceBackend
from rhn.spec.optimizers import PAPER_SGD, Optimizer, OptimizerState
from rhn_tf.backend import TensorFlowBackend

TOLERANCE = 1e-10  # relative to the largest entry; measured 1e-14 in float64

OPTIMIZERS = {
    "sgd": PAPER_SGD,
    "sgd, decoupled": Optimizer(decoupled_weight_decay=True),
    "momentum": Optimizer(momentum=0.8, max_grad_value=0.05),
    "adam": Optimizer("adam", epsilon=1e-3),  # large, so that its place in the formula shows
    "adam, decoupled": Optimizer("adam", decoupled_weight_decay=True, beta1=0.7, beta2=0.9),
}


def build_both(optimizer: Optimizer) -> list[Model]:
    case = make_case(recurrence_depth=1, embedding_size=4, tie_weights=False)
    return [
        backend.build(case.config, case.parameters, "float64", "cpu", optimizer)
        for backend in (TensorFlowBackend(), ReferenceBackend())
    ]


def train(model: Model, steps: int) -> None:
    case = make_case(recurrence_depth=1, embedding_size=4, tie_weights=False)
    for step in range(steps):
        model.train_step(case.tokens, case.targets, case.state, case.masks, 0.1 / (step + 1), 0.01, 0.7)


def remembered(model: Model) -> dict[str, NDArray]:
    return model.parameters() | model.optimizer_state()


def assert_equal(actual: OptimizerState, expected: OptimizerState, tolerance: float = TOLERANCE) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert relative_error(actual[name], value) <= tolerance, name


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_reference(name: str) -> None:
    model, reference = build_both(OPTIMIZERS[name])
    assert model.optimizer_state() == {}
    for _ in range(2):
        for either in (model, reference):
            train(either, 2)
        assert_equal(remembered(model), remembered(reference))
        for either in (model, reference):  # from here on, the weights are averaged
            either.load_optimizer_state({"averaged_steps": np.array(0), **either.optimizer_state()})
        assert_equal(model.optimizer_state(), reference.optimizer_state())


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_what_is_remembered_continues_another_model(name: str) -> None:
    whole, _ = build_both(OPTIMIZERS[name])
    whole.load_optimizer_state({"averaged_steps": np.array(0)})
    train(whole, 2)
    resumed, _ = build_both(OPTIMIZERS[name])
    resumed.load_parameters(whole.parameters())
    resumed.load_optimizer_state(whole.optimizer_state())
    for either in (whole, resumed):
        train(either, 1)
    assert_equal(remembered(resumed), remembered(whole), tolerance=0.0)


def test_averaging_starts_in_a_compiled_step() -> None:
    model, reference = build_both(OPTIMIZERS["adam"])
    for either in (model, reference):
        train(either, 1)
        either.load_optimizer_state({"averaged_steps": np.array(0), **either.optimizer_state()})
        train(either, 1)
    assert_equal(remembered(model), remembered(reference))


def test_parameters_that_do_not_fit_say_so() -> None:
    model, _ = build_both(PAPER_SGD)
    with pytest.raises(ValueError, match=r"missing softmax\.bias"):
        model.load_parameters({name: p for name, p in model.parameters().items() if name != "softmax.bias"})
