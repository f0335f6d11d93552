"""The reference reproduces what the authors' own programs computed (conformance/rhn_conformance/vectors/authors)."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from rhn import RHNConfig, VariationalMasks, parameter_shapes
from rhn.spec import reference
from rhn.spec.arguments import check_masks, check_tokens
from rhn.spec.reference import LayerWeights, layer_backward, layer_forward
from rhn_conformance.cases import authors_data as authors
from rhn_conformance.cases.authors_data import AuthorsCase, LayerCase, load_case, load_layer_case, tensorflow_clip_norm

ROOT = Path(__file__).parents[2]
ARCHIVES = ROOT.parent / "shared" / "authors-golden"

# Relative to the largest entry of a tensor. Largest differences: float64 1.0e-12 (TensorFlow divides the loss by
# 1 + 1e-12; 1e-15 elsewhere), float32 3.1e-7, the rounding of the authors' programs: the reference is in float64.
TOLERANCE = {"float64": 1e-11, "float32": 5e-7}


def assert_close(case: AuthorsCase | LayerCase, actual: ArrayLike, expected: ArrayLike) -> None:
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= TOLERANCE[case.dtype] * np.abs(expected).max()


def assert_all_close(case: AuthorsCase, actual: dict[str, NDArray], expected: dict[str, NDArray]) -> None:
    assert actual.keys() == expected.keys()
    for name in expected:
        assert_close(case, actual[name], expected[name])


def window(case: AuthorsCase) -> tuple:
    return case.config, case.parameters, case.tokens, case.targets, case.state, case.masks


@pytest.fixture(params=authors.CASES)
def case(request: pytest.FixtureRequest) -> AuthorsCase:
    return load_case(request.param)


@pytest.fixture(params=[name for name in authors.CASES if name.startswith("tf_")])
def tensorflow_case(request: pytest.FixtureRequest) -> AuthorsCase:
    return load_case(request.param)


@pytest.fixture(params=[name for name in authors.CASES if name.startswith("theano_")])
def theano_case(request: pytest.FixtureRequest) -> AuthorsCase:
    return load_case(request.param)


@pytest.fixture(params=authors.LAYER_CASES)
def layer(request: pytest.FixtureRequest) -> LayerCase:
    return load_layer_case(request.param)


# ---------------------------------------------------------------------------------------------------------------------
# The files
# ---------------------------------------------------------------------------------------------------------------------


def test_there_are_all_eighteen_files() -> None:
    assert len(authors.CASES) == 12
    assert len(authors.LAYER_CASES) == 6


def test_a_case_holds_what_its_configuration_says(case: AuthorsCase) -> None:
    check_tokens("tokens", case.tokens, case.config.vocab_size)
    check_tokens("targets", case.targets, case.config.vocab_size)
    check_masks(case.config, case.masks, *case.tokens.shape)
    assert all(mask is not None for mask in case.masks[:4])
    assert case.masks[4:] == (None, None)
    for tensors in (
        case.parameters,
        case.gradients,
        case.gradients_without_weight_decay,
        case.new_parameters,
        case.second_step.new_parameters,
    ):
        assert {name: value.shape for name, value in tensors.items()} == parameter_shapes(case.config)
        assert {value.dtype for value in tensors.values()} == {np.dtype(case.dtype)}
    for state in (case.state, case.final_state, case.second_step.final_state):
        assert np.shape(state) == (case.config.num_layers, len(case.tokens), case.config.hidden_size)
    assert case.logits.dtype == case.losses.dtype == case.masks.output.dtype == np.dtype(case.dtype)


@pytest.mark.parametrize("name", [name for name in authors.CASES if name.endswith("float64")])
def test_both_precisions_start_from_the_same_numbers(name: str) -> None:
    double, single = load_case(name), load_case(name.replace("float64", "float32"))
    np.testing.assert_array_equal(double.tokens, single.tokens)
    np.testing.assert_array_equal(double.state, single.state)
    for key, value in double.parameters.items():
        np.testing.assert_array_equal(value, single.parameters[key])


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="case 'tf_tiny' is not known: accepted are tf_nodrop_untied_float32, "):
        load_case("tf_tiny")
    with pytest.raises(ValueError, match="accepted are brainstorm_depth1_float32, "):
        load_layer_case("tf_tiny_float32")


@pytest.mark.skipif(not ARCHIVES.is_dir(), reason="the authors' archives are not at ../shared/authors-golden")
def test_conversion_gives_the_committed_files(tmp_path: Path) -> None:
    converter = ROOT / "tools" / "convert_authors.py"
    subprocess.run([sys.executable, converter, ARCHIVES, "--output", tmp_path], check=True)
    committed = ROOT / "conformance" / "rhn_conformance" / "vectors" / "authors"
    converted = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert converted == {path.name: path.read_bytes() for path in committed.iterdir() if path.suffix != ".md"}
    assert sum(path.stat().st_size for path in committed.iterdir()) < 700_000


# ---------------------------------------------------------------------------------------------------------------------
# TensorFlow and Theano
# ---------------------------------------------------------------------------------------------------------------------


def test_forward(case: AuthorsCase) -> None:
    logits, state = reference.forward(case.config, case.parameters, case.tokens, case.state, case.masks)
    assert_close(case, logits, case.logits)
    assert_close(case, state, case.final_state)
    assert_close(case, reference.cross_entropy(logits, case.targets), case.losses)


def test_losses(case: AuthorsCase) -> None:
    assert_close(case, reference.loss(*window(case)), case.loss)
    assert_close(case, reference.loss(*window(case), case.weight_decay), case.loss_with_weight_decay)


def test_gradients_and_their_norm(case: AuthorsCase) -> None:
    loss, gradients, state = reference.gradients(*window(case), case.weight_decay)
    assert_close(case, loss, case.loss)
    assert_close(case, state, case.final_state)
    assert_all_close(case, gradients, case.gradients)
    assert_close(case, reference.global_norm(gradients), case.grad_norm)


def test_gradients_without_weight_decay(case: AuthorsCase) -> None:
    _, gradients, _ = reference.gradients(*window(case))
    assert_all_close(case, gradients, case.gradients_without_weight_decay)
    assert_close(case, reference.global_norm(gradients), case.grad_norm_without_weight_decay)


def test_two_training_steps(case: AuthorsCase) -> None:
    first_limit, second_limit = case.equivalent_max_grad_norms()
    _, gradients, state = reference.gradients(*window(case), case.weight_decay)
    parameters = reference.sgd_update(case.parameters, gradients, case.learning_rate, first_limit)
    assert_all_close(case, parameters, case.new_parameters)

    second = (case.config, parameters, case.tokens, case.targets, state, case.masks, case.weight_decay)
    assert_close(case, reference.loss(*second), case.second_step.loss_with_weight_decay)
    _, gradients, state = reference.gradients(*second)
    parameters = reference.sgd_update(parameters, gradients, case.learning_rate, second_limit)
    assert_close(case, state, case.second_step.final_state)
    assert_all_close(case, parameters, case.second_step.new_parameters)


def test_the_steps_are_clipped(case: AuthorsCase) -> None:
    """The files would not show how the norm is taken if it did not matter."""
    assert case.max_grad_norm == pytest.approx(case.clip_norm / 2)
    for name, value in case.parameters.items():
        assert_close(case, case.new_parameters[name], value - case.learning_rate * 0.5 * case.gradients[name])


def test_tensorflow_clips_with_the_norm_of_the_pieces(tensorflow_case: AuthorsCase) -> None:
    case = tensorflow_case
    assert_close(case, tensorflow_clip_norm(*window(case), case.weight_decay), case.clip_norm)
    assert_close(case, tensorflow_clip_norm(*window(case), 0.0), case.clip_norm_without_weight_decay)
    assert abs(case.clip_norm / case.grad_norm - 1) > 1e-4  # which is not the true one


def test_tensorflow_pieces_add_up_to_the_gradient(tensorflow_case: AuthorsCase) -> None:
    case = tensorflow_case
    assert case.embedding_slices is not None
    assert case.evaluation is None
    summed = np.zeros_like(case.gradients["embedding"])
    np.add.at(summed, case.embedding_slices.rows, case.embedding_slices.values)
    assert_close(case, summed, case.gradients["embedding"])
    pieces = {**case.gradients, "embedding": case.embedding_slices.values}
    assert_close(case, reference.global_norm(pieces), case.clip_norm)


def test_theano_clips_with_the_true_norm(theano_case: AuthorsCase) -> None:
    case = theano_case
    assert case.embedding_slices is None
    assert_close(case, case.clip_norm, case.grad_norm)
    assert case.equivalent_max_grad_norms() == (case.max_grad_norm, case.max_grad_norm)


def test_theano_evaluates_without_masks(theano_case: AuthorsCase) -> None:
    case = dataclasses.replace(theano_case, masks=VariationalMasks())
    assert case.evaluation is not None
    assert_close(case, reference.loss(*window(case)), case.evaluation.loss)
    assert_close(case, reference.loss(*window(case), case.weight_decay), case.evaluation.loss_with_weight_decay)


def test_what_the_cases_are_there_for() -> None:
    assert load_case("tf_tiny_float64").config == RHNConfig(11, 6, 3, embedding_size=6)
    assert load_case("tf_untied_small_vocab_float64").config == RHNConfig(5, 8, 2, embedding_size=5, tie_weights=False)
    assert load_case("theano_untied_noise_float64").config == RHNConfig(
        11, 6, 4, embedding_size=6, share_gate_masks=False
    )
    assert all((np.asarray(mask) == 1).all() for mask in load_case("tf_nodrop_untied_float64").masks[:4])


# ---------------------------------------------------------------------------------------------------------------------
# Brainstorm
# ---------------------------------------------------------------------------------------------------------------------


def in_float64(layer: LayerCase) -> LayerCase:
    """The case with its arrays in the precision that the reference computes in; `dtype` stays that of the program."""
    arrays = {name: value.astype(float) for name, value in vars(layer).items() if isinstance(value, np.ndarray)}
    weights = LayerWeights(*(weight.astype(float) for weight in layer.parameters))
    return dataclasses.replace(layer, parameters=weights, **arrays)


def test_layer_forward(layer: LayerCase) -> None:
    layer = in_float64(layer)
    outputs, trace = layer_forward(layer.parameters, layer.inputs, layer.state, activation=layer.activation)
    assert_close(layer, outputs, layer.outputs)
    assert_close(layer, np.sum(outputs * layer.d_outputs), layer.loss)
    for time, steps in enumerate(trace):
        for level, step in enumerate(steps):
            assert_close(layer, step.h, layer.h[level, :, time])
            assert_close(layer, step.t, layer.t[level, :, time])
            after = steps[level + 1].state_before if level + 1 < len(steps) else outputs[:, time]
            assert_close(layer, after, layer.s[level, :, time])


def test_layer_backward(layer: LayerCase) -> None:
    layer = in_float64(layer)
    _, trace = layer_forward(layer.parameters, layer.inputs, layer.state, activation=layer.activation)
    gradients = layer_backward(layer.parameters, layer.inputs, trace, layer.d_outputs, activation=layer.activation)
    for actual, expected in zip(gradients.weights, layer.gradients, strict=True):
        assert_close(layer, actual, expected)
    assert_close(layer, gradients.x, layer.d_inputs)


def test_gradient_with_respect_to_the_state(layer: LayerCase) -> None:
    """Brainstorm says what reaches the loss through later time steps: the state's gradient of the window after."""
    layer = in_float64(layer)
    length = layer.inputs.shape[1]
    for time in range(length - 1):
        x = layer.inputs[:, time + 1 :]
        _, trace = layer_forward(layer.parameters, x, layer.outputs[:, time], activation=layer.activation)
        later = layer_backward(
            layer.parameters, x, trace, layer.d_outputs[:, time + 1 :], activation=layer.activation
        ).state
        assert_close(layer, layer.d_outputs[:, time] + later, layer.total_d_outputs[:, time])
    np.testing.assert_array_equal(layer.total_d_outputs[:, -1], layer.d_outputs[:, -1])


def test_layer_cases_with_and_without_a_state() -> None:
    for name in authors.LAYER_CASES:
        assert load_layer_case(name).state.any() == ("context" in name)
