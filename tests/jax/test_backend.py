"""The protocol of `rhn.backend`, kept by the jax backend."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
from cases import Case, errors_against_reference, make_case, name_of, relative_error

import rhn
from rhn.spec import reference
from rhn_jax.backend import JaxBackend, JaxModel

# Largest error relative to the largest entry, over all quantities and cases. Measured: 3e-15 and 7e-7.
TOLERANCE = {"float64": 1e-10, "float32": 2e-5}

# Compiling a case takes seconds. These have every depth, length, batch size, kind of mask and option of the
# architecture at least once; the recurrence has the whole grid in test_recurrence.
COVERING: list[dict[str, Any]] = [
    {"recurrence_depth": 1, "length": 1, "batch_size": 1, "masks": "none"},
    {"recurrence_depth": 3, "length": 2, "batch_size": 1, "masks": "separate"},
    {"recurrence_depth": 10, "length": 5, "batch_size": 3, "masks": "shared"},
    {"num_layers": 2, "embedding_size": 4, "tie_weights": False, "couple_gates": False, "masks": "separate"},
    {"activation": "relu", "couple_gates": False, "masks": "none"},
    {"embedding_size": 9, "tie_weights": False, "activation": "sigmoid"},
    {"embedding_size": 4, "drop_update": 0.4, "time_masks": True, "reset_probability": 0.5},
]


def build(case: Case, **options: Any) -> JaxModel:
    return JaxBackend().build(case.config, case.parameters, **{"dtype": "float32", "device": "cpu", **options})


def assert_matches_reference(case: Case, dtype: str) -> None:
    errors = errors_against_reference(build(case, dtype=dtype), case)
    assert {name: error for name, error in errors.items() if not error <= TOLERANCE[dtype]} == {}


@pytest.mark.parametrize("options", COVERING, ids=name_of)
def test_everything_matches_the_reference(options: dict[str, Any]) -> None:
    assert_matches_reference(make_case(**options), "float64")


@pytest.mark.parametrize("options", [{}, COVERING[0]], ids=name_of)
def test_everything_matches_the_reference_in_float32(options: dict[str, Any]) -> None:
    assert_matches_reference(make_case(**options), "float32")


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_lower_precision_is_a_permission_that_a_cpu_does_not_use(precision: str) -> None:
    errors = gradient_errors({"precision": precision}, {})
    assert max(errors.values()) <= TOLERANCE["float32"], errors  # measured: 0


def test_recompute_is_exact() -> None:
    errors = gradient_errors({"recompute": True, "dtype": "float64"}, {"dtype": "float64"})
    assert max(errors.values()) <= 1e-13, errors  # measured: 0


def gradient_errors(options: dict[str, Any], options_of_expected: dict[str, Any]) -> dict[str, float]:
    """Relative error of loss and gradients of a model with `options`, by name."""
    case = make_case()
    (loss, gradients, _), (expected_loss, expected, _) = (
        build(case, **o).gradients(case.tokens, case.targets, case.state, case.masks)
        for o in (options, options_of_expected)
    )
    return {"loss": relative_error(loss, expected_loss)} | {
        name: relative_error(gradients[name], gradient) for name, gradient in expected.items()
    }


def test_log_likelihoods_match_the_reference() -> None:
    case = make_case()
    log_likelihoods, state = build(case).log_likelihoods(case.tokens, case.targets, case.state, case.masks)
    logits, expected_state = reference.forward(case.config, case.parameters, case.tokens, case.state, case.masks)
    expected = -reference.cross_entropy(logits, case.targets)
    # Measured: 1.2e-7, in float32.
    np.testing.assert_allclose(log_likelihoods, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(state, expected_state, rtol=0, atol=1e-6)


def test_is_found_by_name_and_keeps_the_protocol() -> None:
    backend = rhn.load_backend("jax")
    assert isinstance(backend, rhn.Backend)
    assert isinstance(build(make_case()), rhn.Model)
    assert backend.describe()["jax"] == jax.__version__


def test_compiled_quickly_it_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])  # as it is now, it will be afterwards
    JaxBackend().compile_quickly()
    assert jax.config.read("jax_disable_most_optimizations")
    try:
        assert_matches_reference(make_case(), "float64")
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


def test_arguments_are_copied() -> None:
    case = make_case()
    parameters = {name: value.astype(np.float32) for name, value in case.parameters.items()}
    before = {name: value.copy() for name, value in parameters.items()}
    model = JaxBackend().build(case.config, parameters)
    state = [s.astype(np.float32) for s in case.state]
    model.train_step(case.tokens, case.targets, state, case.masks, 0.1, 0.0, 10.0)
    for name, value in before.items():
        np.testing.assert_array_equal(parameters[name], value)
    assert not np.array_equal(model.parameters()["embedding"], before["embedding"])


def test_windows_of_different_sizes_follow_each_other() -> None:
    case = make_case(length=5, batch_size=3)
    model = build(case)
    whole, whole_state = model.forward(case.tokens, case.state)
    first, state = model.forward(case.tokens[:, :2], case.state)
    second, state = model.forward(case.tokens[:, 2:], state)
    # Measured: 2e-7; shapes of the matrix products differ.
    np.testing.assert_allclose(np.concatenate((first, second), axis=1), whole, rtol=0, atol=2e-6)
    np.testing.assert_allclose(state, whole_state, rtol=0, atol=2e-6)


def test_zero_state_is_the_default() -> None:
    case = make_case()
    model = build(case)
    assert [s.shape for s in model.zero_state(3)] == [(3, 6)]
    np.testing.assert_array_equal(model.forward(case.tokens)[0], model.forward(case.tokens, model.zero_state(3))[0])


def test_tokens_of_any_integer_type() -> None:
    case = make_case()
    model = build(case)
    expected = model.forward(case.tokens)[0]
    for dtype in (np.uint8, np.uint16, np.int32):
        np.testing.assert_array_equal(model.forward(case.tokens.astype(dtype))[0], expected)


def test_both_precisions_in_one_process() -> None:
    case = make_case(**COVERING[0])
    single = build(case)
    for model, dtype in ((single, "float32"), (build(case, dtype="float64"), "float64"), (single, "float32")):
        loss, state = model.train_step(case.tokens, case.targets, case.state, case.masks, 0.1, 0.0, 10.0)
        assert {a.dtype.name for a in (loss, model.last_grad_norm, *state, *model.parameters().values())} == {dtype}
        assert (loss + 0.5).dtype == dtype  # a caller's arithmetic keeps the precision as well


BAD_INPUT = [
    ({"tokens": np.zeros(3, dtype=int)}, r"tokens of shape \(3,\)"),
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
def test_bad_input_is_refused_in_one_sentence(change: dict[str, Any], message: str) -> None:
    case = make_case()
    arguments = {"tokens": case.tokens, "targets": case.targets, "state": case.state, "masks": case.masks, **change}
    with pytest.raises(ValueError, match=message):
        build(case).gradients(**arguments)


def test_what_cannot_be_built() -> None:
    case = make_case()
    with pytest.raises(ValueError, match="dtype='float16' is not accepted: expected one of float32, float64"):
        build(case, dtype="float16")
    with pytest.raises(ValueError, match="precision='bf16' is not accepted with dtype='float64'"):
        build(case, dtype="float64", precision="bf16")
    with pytest.raises(ValueError, match="device='quantum' is not accepted: expected an available device: cpu"):
        build(case, device="quantum")
    with pytest.raises(ValueError, match="missing embedding"):
        JaxBackend().build(case.config, {})


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="says what is missing where there is no GPU")
def test_missing_gpu() -> None:
    with pytest.raises(ValueError, match=r"device='gpu' is not accepted: expected an available device: cpu$"):
        build(make_case(), device="gpu")


def run_python(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_import_loads_no_other_framework() -> None:
    loaded = set(run_python("import sys, rhn_jax, rhn_jax.backend; print(*sys.modules)").split())
    assert not {"torch", "tensorflow", "keras", "sacred"} & loaded


@pytest.mark.parametrize(("choice", "expected"), [(None, "false"), ("true", "true")])
def test_gpu_memory_is_not_taken_at_start_unless_the_user_asks(choice: str | None, expected: str) -> None:
    setting = "XLA_PYTHON_CLIENT_PREALLOCATE"
    before = f"os.environ.pop('{setting}', None)" if choice is None else f"os.environ['{setting}'] = '{choice}'"
    assert (
        run_python(f"import os; {before}; import rhn_jax.backend; print(os.environ['{setting}'])").strip() == expected
    )
