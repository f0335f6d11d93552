"""The backend against the reference, and what `rhn.backend.Backend` promises of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import tensorflow as tf
from cases import ARCHITECTURES, GRID, Case, errors_against_reference, make_case, name_of, relative_error

from rhn.spec import reference
from rhn_tf.backend import TensorFlowBackend, TensorFlowModel, find_device, let_gpu_memory_grow

# Relative to the largest entry. Measured over the grid: 3e-15 in float64, 1e-6 in float32.
TOLERANCE = {"float64": 1e-10, "float32": 2e-5}

# float32 and compiled programs go through the same lines; what they could get wrong shows in few cases.
DEEP: Mapping[str, object] = {"recurrence_depth": 10, "length": 5}
COMPILED: list[Mapping[str, object]] = [
    {"length": 5},
    {"num_layers": 2, "embedding_size": 4, "tie_weights": False, "couple_gates": False, "masks": "separate"},
]


def build(case: Case, dtype: str = "float64") -> TensorFlowModel:
    return TensorFlowBackend().build(case.config, case.parameters, dtype, "cpu")


def assert_equals_reference(options: Mapping[str, object], dtype: str) -> None:
    case = make_case(**options)
    errors = errors_against_reference(build(case, dtype), case)
    worst = max(errors, key=errors.__getitem__)
    assert errors[worst] < TOLERANCE[dtype], worst


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("options", GRID, ids=name_of)
def test_equals_reference(options: Mapping[str, object]) -> None:
    assert_equals_reference(options, "float64")


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("options", [DEEP, *ARCHITECTURES], ids=name_of)
def test_equals_reference_in_float32(options: Mapping[str, object]) -> None:
    assert_equals_reference(options, "float32")


@pytest.mark.parametrize(("options", "dtype"), list(zip(COMPILED, ("float32", "float64"), strict=True)))
def test_equals_reference_compiled(options: Mapping[str, object], dtype: str) -> None:
    assert_equals_reference(options, dtype)


def test_products_of_a_step_are_batched_over_time() -> None:
    """Per layer L products forward and L backward in the loops, and outside of them one per weight gradient."""
    case = make_case(recurrence_depth=3)
    model = build(case)
    window = model._window(case.tokens, case.targets, case.state, case.masks)
    arguments = window, tf.constant(0.0, tf.float64), model._regularization(0.0, 0.0)
    graph = model._compiled_gradients.get_concrete_function(*arguments).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    depth, of_input, of_softmax = 3, 3, 3  # the latter two: forward, gradient of the operand, gradient of the weight
    assert sum(node.op == "MatMul" for node in nodes) == 3 * depth + of_input + of_softmax
    assert sum(node.op in ("While", "StatelessWhile") for node in nodes) == 2


@pytest.mark.usefixtures("eagerly")
def test_log_likelihoods() -> None:
    case = make_case()
    model = build(case)
    actual, _ = model.log_likelihoods(case.tokens, case.targets, case.state, case.masks)
    logits, _ = reference.forward(case.config, case.parameters, case.tokens, case.state, case.masks)
    assert relative_error(actual, -reference.cross_entropy(logits, case.targets)) < TOLERANCE["float64"]


@pytest.mark.usefixtures("eagerly")
def test_built_models_do_not_share_parameters() -> None:
    case = make_case()
    first, second = build(case), build(case)
    first.train_step(case.tokens, case.targets, first.zero_state(3), None, 0.1, 0.0, 5.0)
    np.testing.assert_array_equal(second.parameters()["embedding"], case.parameters["embedding"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float16"}, "dtype='float16' is not accepted: expected one of float32, float64"),
        ({"device": "tpu"}, "device='tpu' is not accepted: expected an available device: cpu"),
        ({"precision": "fp8"}, "precision='fp8' is not accepted: expected one of float32, tf32, bf16"),
        ({"precision": "bf16", "dtype": "float64"}, "precision='bf16' is not accepted with dtype='float64'"),
    ],
)
def test_build_says_what_is_wrong(arguments: dict[str, str], message: str) -> None:
    case = make_case()
    with pytest.raises(ValueError, match=message):
        TensorFlowBackend().build(case.config, case.parameters, **arguments)


def test_bad_windows_say_what_is_wrong() -> None:
    case = make_case()
    model = build(case)
    with pytest.raises(ValueError, match="tokens from 0 to 99 are not accepted"):
        model.forward(np.array([[0, 99]]))
    with pytest.raises(ValueError, match="targets of shape"):
        model.evaluate_step(case.tokens, case.targets[:, 1:], case.state)
    with pytest.raises(ValueError, match="state of shapes"):
        model.forward(case.tokens, case.state[0][:, 1:][None])
    with pytest.raises(ValueError, match=r"masks.output of shape"):
        model.forward(case.tokens, None, case.masks._replace(output=case.masks.output[1:]))


def test_gpu_memory_grows_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    grown: list[str] = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, on: grown.append(gpu))
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    let_gpu_memory_grow()
    assert grown == []
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH")
    let_gpu_memory_grow()
    assert grown == ["GPU"]
    assert find_device(None) == "/device:GPU:0"


def test_describe_names_versions_and_device() -> None:
    assert TensorFlowBackend().describe().keys() == {"tensorflow", "keras", "device"}
