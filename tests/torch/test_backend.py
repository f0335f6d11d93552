"""The protocol of `rhn.backend`, kept by the torch backend."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from cases import GRID, errors_against_reference, make_case, name_of, relative_error

import rhn
from rhn.spec import reference
from rhn.spec.optimizers import PAPER_SGD
from rhn_conformance.cases.authors_data import CASES, load_case
from rhn_torch.backend import TorchBackend
from rhn_torch.update import Update

# Largest error relative to the largest entry, over all quantities and cases. Measured: 2e-15 and 1.2e-6.
TOLERANCE = {"float64": 1e-10, "float32": 2e-5}


def build(case, **options):
    return TorchBackend().build(case.config, case.parameters, **{"dtype": "float64", "device": "cpu", **options})


def test_the_norm_of_millions_of_gradients_keeps_its_digits():
    gradient = torch.randn(10_000, 830, generator=torch.Generator().manual_seed(1))
    exact = np.sqrt(np.square(gradient.numpy(), dtype=np.float64).sum())
    update = Update(make_case().config, PAPER_SGD, {"w": torch.zeros_like(gradient)}, {})
    assert relative_error(update([gradient], 0.1, 0.0, 1.0), exact) < 1e-6  # measured: 1e-7; of one long sum, 2e-4


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("options", GRID, ids=name_of)
def test_everything_matches_the_reference(options, dtype):
    case = make_case(**options)
    errors = errors_against_reference(build(case, dtype=dtype), case)
    assert {name: error for name, error in errors.items() if not error <= TOLERANCE[dtype]} == {}


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "couple_gates": False, "masks": "separate"}], ids=name_of)
def test_recomputed_gates_match_the_reference(options):
    case = make_case(**options)
    errors = errors_against_reference(build(case, recompute=True), case)
    assert {name: error for name, error in errors.items() if not error <= TOLERANCE["float64"]} == {}


OPTIMIZERS = [
    rhn.Optimizer(decoupled_weight_decay=True),
    rhn.Optimizer("adam"),
    rhn.Optimizer(momentum=0.8, max_grad_value=0.05),
    rhn.Optimizer("adam", decoupled_weight_decay=True, beta1=0.5, beta2=0.9, epsilon=1e-4),
]


@pytest.mark.parametrize("averaging", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_optimizers_match_the_reference(optimizer, averaging):
    case = make_case(num_layers=2)
    backends = {name: rhn.load_backend(name) for name in ("torch", "reference")}
    models = {n: b.build(case.config, case.parameters, "float64", "cpu", optimizer) for n, b in backends.items()}
    for model in models.values():
        if averaging:
            model.load_optimizer_state({"averaged_steps": np.array(0)})
        for rate in (0.1, 0.05, 0.2):
            model.train_step(case.tokens, case.targets, case.state, case.masks, rate, 0.01, 0.7)
    actual, expected = ({**m.parameters(), **m.optimizer_state()} for m in models.values())
    assert actual.keys() == expected.keys()
    errors = {name: relative_error(actual[name], expected[name]) for name in expected}
    assert {name: error for name, error in errors.items() if not error <= TOLERANCE["float64"]} == {}


@pytest.mark.parametrize("optimizer", [rhn.Optimizer(), *OPTIMIZERS], ids=str)
def test_a_saved_optimizer_goes_on_bit_for_bit(optimizer):
    case = make_case()
    model = build(case, dtype="float32", optimizer=optimizer)
    model.load_optimizer_state({"averaged_steps": np.array(0)})
    step = (case.tokens, case.targets, case.state, case.masks, 0.1, 0.01, 0.7)
    model.train_step(*step)
    resumed = TorchBackend().build(case.config, model.parameters(), "float32", "cpu", optimizer)
    resumed.load_optimizer_state(model.optimizer_state())
    for either in (model, resumed):
        either.train_step(*step)
    results = [{**m.parameters(), **m.optimizer_state()} for m in (model, resumed)]
    assert results[0].keys() == results[1].keys()
    assert all(np.array_equal(value, results[1][name]) for name, value in results[0].items())


@pytest.mark.parametrize("name", CASES)
def test_the_authors_numbers(name):
    """Measured: 1e-12 in float64 (their TensorFlow divides the cost by 1 + 1e-12), 5e-7 in float32."""
    case = load_case(name)
    model = TorchBackend().build(case.config, case.parameters, case.dtype, "cpu")
    first_limit, second_limit = case.equivalent_max_grad_norms()
    errors = {}

    def compare(what, actual, expected):
        errors[what] = relative_error(actual, expected)

    logits, state = model.forward(case.tokens, case.state, case.masks)
    compare("logits", logits, case.logits)
    compare("state", state, case.final_state)
    _, gradients, _ = model.gradients(case.tokens, case.targets, case.state, case.masks, case.weight_decay)
    for parameter, gradient in case.gradients.items():
        compare(f"gradient of {parameter}", gradients[parameter], gradient)

    options = case.learning_rate, case.weight_decay
    loss, state = model.train_step(case.tokens, case.targets, case.state, case.masks, *options, first_limit)
    compare("loss", model.to_numpy(loss), case.loss)
    compare("norm", model.to_numpy(model.last_grad_norm), case.grad_norm)
    for parameter, value in case.new_parameters.items():
        compare(f"{parameter} after step 1", model.parameters()[parameter], value)
    _, state = model.train_step(case.tokens, case.targets, state, case.masks, *options, second_limit)
    compare("state after step 2", [model.to_numpy(s) for s in state], case.second_step.final_state)
    for parameter, value in case.second_step.new_parameters.items():
        compare(f"{parameter} after step 2", model.parameters()[parameter], value)
    assert {what: error for what, error in errors.items() if not error <= TOLERANCE[case.dtype]} == {}


def test_log_likelihoods_match_the_reference():
    case = make_case(num_layers=2)
    logits, expected_state = reference.forward(case.config, case.parameters, case.tokens, case.state, case.masks)
    model = build(case)
    scores, state = model.log_likelihoods(case.tokens, case.targets, case.state, case.masks)
    assert relative_error(model.to_numpy(scores), -reference.cross_entropy(logits, case.targets)) <= 1e-10
    assert relative_error([model.to_numpy(s) for s in state], expected_state) <= 1e-10


def test_is_found_by_name_and_keeps_the_protocol():
    backend = rhn.load_backend("torch")
    assert isinstance(backend, rhn.Backend)
    assert isinstance(build(make_case()), rhn.Model)
    assert backend.describe()["torch"] == torch.__version__


def test_parameters_are_copied_in():
    case = make_case()
    model = build(case)
    before = {name: value.copy() for name, value in case.parameters.items()}
    model.train_step(case.tokens, case.targets, case.state, case.masks, 0.1, 0.0, 10.0)
    assert all(np.array_equal(case.parameters[name], value) for name, value in before.items())


def test_windows_of_different_sizes_follow_each_other():
    case = make_case(length=5, batch_size=3)
    model = build(case)
    whole, whole_state = model.forward(case.tokens, case.state)
    first, state = model.forward(case.tokens[:, :2], case.state)
    second, state = model.forward(case.tokens[:, 2:], state)
    # Measured: 4e-16; shapes of the matrix products differ.
    np.testing.assert_allclose(np.concatenate((first, second), axis=1), whole, rtol=0, atol=1e-13)
    np.testing.assert_allclose(state, whole_state, rtol=0, atol=1e-13)
    one_row, _ = model.forward(case.tokens[1:2], [s[1:2] for s in case.state])
    np.testing.assert_allclose(one_row, whole[1:2], rtol=0, atol=1e-13)


def test_zero_state_is_the_default():
    case = make_case(num_layers=2)
    model = build(case)
    assert [tuple(s.shape) for s in model.zero_state(3)] == [(3, 6), (3, 6)]
    assert np.array_equal(model.forward(case.tokens)[0], model.forward(case.tokens, model.zero_state(3))[0])


def test_steps_leave_results_on_the_device_and_no_graph():
    case = make_case()
    model = build(case)
    loss, state = model.train_step(case.tokens, case.targets, case.state, case.masks, 0.1, 1e-3, 10.0)
    for tensor in (loss, model.last_grad_norm, *state):
        assert isinstance(tensor, torch.Tensor)
        assert not tensor.requires_grad
    nll, _ = model.evaluate_step(case.tokens, case.targets, state)
    assert not nll.requires_grad


def test_gradients_do_not_accumulate():
    case = make_case()
    model = build(case)
    first, second = (model.gradients(case.tokens, case.targets)[1] for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_tokens_of_any_integer_type():
    case = make_case()
    model = build(case)
    expected = model.forward(case.tokens)[0]
    for dtype in (np.uint8, np.uint16, np.int32):
        assert np.array_equal(model.forward(case.tokens.astype(dtype))[0], expected)


BAD_INPUT = [
    ({"tokens": np.zeros(3, dtype=int)}, r"^tokens of shape \(3,\)"),
    ({"tokens": np.full((3, 3), 11)}, "tokens from 11 to 11 are not accepted"),
    ({"targets": np.full((3, 3), -1)}, "targets from -1 to -1 are not accepted"),
    ({"targets": np.zeros((3, 2), dtype=int)}, r"targets of shape \(3, 2\) are not accepted"),
    (
        {"state": [np.zeros((3, 5))]},
        r"state of shapes \[\(3, 5\)\] is not accepted",
    ),
    ({"state": []}, r"state of shapes \[\] is not accepted"),
    ({"masks": rhn.VariationalMasks(output=np.ones((3, 5)))}, r"masks.output of shape \(3, 5\)"),
]


@pytest.mark.parametrize(("change", "message"), BAD_INPUT)
def test_bad_input_is_refused_in_one_sentence(change, message):
    case = make_case()
    arguments = {"tokens": case.tokens, "targets": case.targets, "state": case.state, "masks": case.masks, **change}
    with pytest.raises(ValueError, match=message):
        build(case).gradients(**arguments)


def test_what_cannot_be_built():
    case = make_case()
    with pytest.raises(ValueError, match="dtype='float16' is not accepted: expected one of float32, float64"):
        build(case, dtype="float16")
    with pytest.raises(ValueError, match=r"device='tpu' is not accepted: expected an available device: cpu$"):
        build(case, device="tpu")
    with pytest.raises(ValueError, match="precision='bf16' is not accepted with dtype='float64'"):
        build(case, dtype="float64", precision="bf16")
    with pytest.raises(ValueError, match="precision='fp8' is not accepted"):
        build(case, dtype="float32", precision="fp8")
    with pytest.raises(ValueError, match="missing embedding"):
        TorchBackend().build(case.config, {})


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing where there is no GPU")
@pytest.mark.parametrize("device", ["gpu", "cuda", "cuda:1"])
def test_missing_gpu(device):
    with pytest.raises(ValueError, match=f"device='{device}' is not accepted: expected an available device: cpu$"):
        build(make_case(), device=device)


def test_import_loads_no_other_framework():
    program = "import sys, rhn_torch, rhn_torch.backend; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"tensorflow", "keras", "jax", "flax", "sacred"} & set(loaded)
