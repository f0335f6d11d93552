import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import rhn
from rhn.spec.reference import sigmoid
from rhn.training.evaluate.analyse import analyse_checkpoint
from rhn.training.evaluate.analyse.gates import analyse, gate_chart, without_gate
from rhn.training.evaluate.analyse.jacobian import layer_jacobians, sampled_times
from rhn.training.evaluate.stream import evaluate
from rhn.training.options import DEFAULTS, OptionError

STREAM = np.random.default_rng(1).integers(0, 6, 131)
CONFIG = rhn.RHNConfig(vocab_size=6, hidden_size=4, recurrence_depth=3, num_layers=2)
PARAMETERS = rhn.initial_parameters(CONFIG, seed=1, init_scale=1.0, transform_bias=-0.5)


def build(config: rhn.RHNConfig, parameters: dict[str, NDArray]) -> rhn.Model:
    return rhn.load_backend("reference").build(config, parameters, "float64")


def test_gates_without_weights_show_their_biases() -> None:
    parameters = {name: value.astype(np.float64) for name, value in PARAMETERS.items()}
    for layer in range(2):
        parameters[f"layers.{layer}.recurrent_weight"][:, 1] = 0.0
        parameters[f"layers.{layer}.input_weight"][1] = 0.0
        parameters[f"layers.{layer}.bias"][:, 1] = np.arange(12).reshape(3, 4) / 4 - layer
    analysis = analyse(build(CONFIG, parameters), STREAM, "char")
    for layer in range(2):
        expected = sigmoid(np.arange(12).reshape(3, 4) / 4 - layer)  # (L, H)
        np.testing.assert_allclose(analysis.activity[layer], expected.mean(axis=1), rtol=1e-13)
        np.testing.assert_allclose(analysis.activity_std[layer], expected.std(axis=1), rtol=1e-12)


def test_the_norms_are_those_of_the_states_that_the_model_hands_on() -> None:
    model = build(CONFIG, PARAMETERS)
    analysis = analyse(model, STREAM, "char")
    assert analysis.state_norms.shape == (2, 130)
    state: Any = None
    for time in range(130):
        _, state = model.forward(STREAM[None, time : time + 1], state)
        norms = [np.linalg.norm(s) for s in state]
        np.testing.assert_allclose(analysis.state_norms[:, time], norms, rtol=1e-12)


@pytest.mark.parametrize("couple_gates", [True, False])
@pytest.mark.parametrize("micro_step", [1, 2])
def test_a_shut_gate_is_a_micro_step_less(micro_step: int, couple_gates: bool) -> None:
    """With coupled gates; otherwise only if the carry gate is open."""
    config = rhn.RHNConfig(6, 4, 3, couple_gates=couple_gates)
    smaller = rhn.RHNConfig(6, 4, 2, couple_gates=couple_gates)
    parameters = rhn.initial_parameters(config, seed=4, init_scale=1.0)
    if not couple_gates:
        parameters["layers.0.recurrent_weight"][micro_step, 2] = 0.0
        parameters["layers.0.bias"][micro_step, 2] = 80.0
    shortened = dict(parameters)
    for name in ("layers.0.recurrent_weight", "layers.0.bias"):
        shortened[name] = np.delete(parameters[name], micro_step, axis=0)
    lesioned = build(config, without_gate(config, parameters, 0, micro_step))
    expected = evaluate(build(smaller, shortened), STREAM, "char").nats
    assert evaluate(lesioned, STREAM, "char").nats == pytest.approx(expected, rel=1e-13)


def test_a_layer_whose_only_gate_is_shut_passes_nothing_on() -> None:
    config = rhn.RHNConfig(6, 4, 1)
    parameters = rhn.initial_parameters(config, seed=4, init_scale=1.0)
    logits, _ = build(config, without_gate(config, parameters, 0, 0)).forward(STREAM[None])
    np.testing.assert_allclose(logits, np.broadcast_to(parameters["softmax.bias"], logits.shape), atol=1e-15)


def test_lesions_are_scored_and_the_model_is_restored() -> None:
    model, seen = build(CONFIG, PARAMETERS), []
    analysis = analyse(model, STREAM, "char", seen.append)
    assert analysis.nats == evaluate(model, STREAM, "char").nats
    for layer, micro_step in np.ndindex(2, 3):
        lesioned = build(CONFIG, without_gate(CONFIG, PARAMETERS, layer, micro_step))
        assert analysis.lesion_nats[layer, micro_step] == evaluate(lesioned, STREAM, "char").nats
    assert (analysis.lesion_nats != analysis.nats).all()
    for name, value in model.parameters().items():
        np.testing.assert_array_equal(value, PARAMETERS[name].astype(np.float64))
    assert sum(seen) == (2 + 6) * 130
    assert gate_chart(analysis, "two layers").startswith(b"\x89PNG")


def test_without_recurrent_weights_the_jacobian_is_what_the_carry_gates_let_through() -> None:
    parameters = {name: value.astype(np.float64) for name, value in PARAMETERS.items()}
    for layer in range(2):
        parameters[f"layers.{layer}.recurrent_weight"][:] = 0.0
        parameters[f"layers.{layer}.input_weight"][:] = 0.0
        parameters[f"layers.{layer}.bias"][:, 1] = np.arange(12).reshape(3, 4) / 4 - layer
    for layer, jacobians in enumerate(layer_jacobians(CONFIG, parameters, STREAM, samples=5)):
        carries = 1.0 - sigmoid(np.arange(12).reshape(3, 4) / 4 - layer)  # (L, H)
        assert jacobians.time_step.eigenvalues.shape == (5, 4)
        np.testing.assert_allclose(jacobians.time_step.radii, 0.0, atol=1e-15)
        np.testing.assert_allclose(jacobians.time_step.centres, np.tile(carries.prod(axis=0), (5, 1)), rtol=1e-13)
        for micro_step, carry in zip(jacobians.micro_steps, carries, strict=True):
            np.testing.assert_allclose(micro_step.figures()["spectral_radius_max"], carry.max(), rtol=1e-13)


@pytest.mark.parametrize(("tokens", "samples"), [(130, 5), (3, 20), (1, 1), (3, 10**12)])
def test_sampled_times_are_times_of_the_stream(tokens: int, samples: int) -> None:
    times = sampled_times(tokens, samples)
    assert len(times) == min(tokens, samples)
    assert (times >= 0).all()
    assert times[-1] == tokens - 1


@pytest.mark.parametrize(("name", "value"), [("analyse_tokens", 0), ("analyse_jacobians", 0), ("part", "dev")])
def test_impossible_options_are_named_before_anything_is_loaded(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"{name}={value!r} is not accepted: expected"):
        analyse_checkpoint("reference", {**DEFAULTS, "checkpoint": "nowhere", name: value}, {})


def test_the_command_prints_a_table_and_leaves_files(
    call: Callable[..., Any], checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(analyse_checkpoint, analyse_tokens=25, part="valid")
    out = capsys.readouterr().out
    assert "the first 25 tokens of valid: bits per character" in out
    assert "percentiles: 0% " in out
    figures = json.loads(checkpoint.with_name("model.analysis.json").read_text())
    assert figures["tokens"] == 25
    assert np.shape(figures["transform_gate_mean"]) == np.shape(figures["nats_with_gate_shut"]) == (1, 2)
    assert checkpoint.with_name("model.analysis.png").read_bytes().startswith(b"\x89PNG")
    assert "Jacobian of a time step, at the start: spectral radius" in out
    jacobian = json.loads(checkpoint.with_name("model.jacobian.json").read_text())
    assert (jacobian["tokens"], jacobian["times"]) == (25, 20)
    assert len(jacobian["trained"][0]["micro_steps"]) == 2
    assert jacobian["trained"] != jacobian["at_the_start"]
    assert checkpoint.with_name("model.jacobian.png").read_bytes().startswith(b"\x89PNG")
