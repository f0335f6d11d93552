import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import rhn
from rhn.spec import reference
from rhn.training.evaluate.dynamic import (
    evaluate_dynamic,
    evaluate_dynamic_rms,
    evaluate_dynamic_sgd,
    gradient_roots,
)
from rhn.training.evaluate.stream import evaluate
from rhn.training.options import OptionError, Options
from rhn.training.score import Score

CONFIG = rhn.RHNConfig(vocab_size=5, hidden_size=4, recurrence_depth=2)
PARAMETERS = rhn.initial_parameters(CONFIG, seed=2, init_scale=0.5)
TRAIN = np.random.default_rng(1).integers(0, 5, 90)
STREAM = np.array([0, 1, 2, 3, 4, 3, 2, 1] * 12 + [0, 4])  # a pattern that can be picked up
SGD = Options(
    dynamic_rule="sgd",
    dynamic_rate=0.5,
    dynamic_length=7,
    dynamic_decay=0.3,
    dynamic_epsilon=1e-3,
    dynamic_batch_size=3,
    dynamic_windows=None,
    max_grad_norm=1.0,
    part="test",
)
RMS = replace(SGD, dynamic_rule="rms", dynamic_rate=0.004)
FAST_SGD = replace(SGD, dynamic_rate=2.0, max_grad_norm=5.0)
FAST_RMS = replace(RMS, dynamic_rate=0.02, dynamic_decay=0.01)


@pytest.fixture
def model() -> rhn.Model:
    return rhn.load_backend("reference").build(CONFIG, PARAMETERS, "float64")


def evaluate_by(
    model: rhn.Model, tokens: NDArray, options: Options, progress: Callable[[int], None] = lambda tokens: None
) -> Score:
    """By the rule of `options`."""
    if options.dynamic_rule == "sgd":
        return evaluate_dynamic_sgd(model, tokens, "char", options, progress)
    return evaluate_dynamic_rms(model, tokens, "char", options, gradient_roots(model, TRAIN, options), progress)


def cut(tokens: NDArray, length: int) -> list[tuple[NDArray, NDArray]]:
    starts = range(0, len(tokens) - 1, length)
    return [
        (tokens[None, i : i + length][:, : len(tokens) - 1 - i], tokens[None, i + 1 : i + length + 1]) for i in starts
    ]


def test_sgd_is_a_step_after_every_window(model: rhn.Model) -> None:
    p: dict[str, NDArray] = {name: value.astype(np.float64) for name, value in PARAMETERS.items()}
    nll, state = 0.0, None
    for inputs, targets in cut(STREAM, 7):
        loss, grads, state = reference.gradients(CONFIG, p, inputs, targets, state)
        nll += loss
        p = reference.sgd_update(p, grads, 0.5 / targets.size, 1.0)
    assert evaluate_by(model, STREAM, SGD).nats == pytest.approx(nll / (len(STREAM) - 1), rel=1e-12)


def test_rms_is_the_rule_of_the_paper(model: rhn.Model) -> None:
    trained = {name: value.astype(np.float64) for name, value in PARAMETERS.items()}
    columns = TRAIN.reshape(3, 30)
    squares, state = [], None
    for i in (0, 7, 14, 21):
        _, grads, state = reference.gradients(CONFIG, trained, columns[:, i : i + 7], columns[:, i + 1 : i + 8], state)
        squares.append({name: (g / 7) ** 2 for name, g in grads.items()})
    root = {name: np.sqrt(np.mean([square[name] for square in squares], axis=0)) for name in trained}
    mean_root = np.concatenate([value.ravel() for value in root.values()]).mean()
    assert max(value.max() for value in root.values()) > mean_root / 0.3  # the limit on the pull is reached

    p, nll, state = trained, 0.0, None
    for inputs, targets in cut(STREAM, 7):
        loss, grads, state = reference.gradients(CONFIG, p, inputs, targets, state)
        nll += loss
        p = {
            name: value
            - 0.004 * (grads[name] / targets.size) / (root[name] + 1e-3)
            + np.minimum(0.3 * root[name] / mean_root, 1.0) * (trained[name] - value)
            for name, value in p.items()
        }
    assert evaluate_by(model, STREAM, RMS).nats == pytest.approx(nll / (len(STREAM) - 1), rel=1e-12)


@pytest.mark.parametrize("options", [FAST_SGD, FAST_RMS], ids=["sgd", "rms"])
def test_it_learns_from_what_it_has_scored(model: rhn.Model, options: Options) -> None:
    stream = np.tile(STREAM, 10)
    static, dynamic = evaluate(model, stream, "char"), evaluate_by(model, stream, options)
    assert dynamic.nats < static.nats - 0.5  # measured: 1.65 static, 0.97 with SGD, 1.02 with RMS
    assert dynamic.tokens == static.tokens == len(stream) - 1


@pytest.mark.parametrize("options", [SGD, RMS], ids=["sgd", "rms"])
def test_a_window_is_scored_before_it_is_learned(model: rhn.Model, options: Options) -> None:
    first = STREAM[: options.dynamic_length + 1]
    assert evaluate_by(model, first, options).nats == pytest.approx(evaluate(model, first, "char").nats, rel=1e-13)


@pytest.mark.parametrize("options", [SGD, RMS], ids=["sgd", "rms"])
def test_without_learning_it_is_the_static_score(model: rhn.Model, options: Options) -> None:
    still = replace(options, dynamic_rate=1e-300)
    static = evaluate(model, STREAM, "char").nats
    assert evaluate_by(model, STREAM, still).nats == pytest.approx(static, rel=1e-12)


@pytest.mark.parametrize("options", [SGD, RMS], ids=["sgd", "rms"])
def test_the_parameters_are_restored_whatever_happens(model: rhn.Model, options: Options) -> None:
    def fail(tokens: int) -> None:
        raise KeyboardInterrupt

    evaluate_by(model, STREAM, options)
    with pytest.raises(KeyboardInterrupt):
        evaluate_by(model, STREAM, options, fail)
    for name, value in model.parameters().items():
        np.testing.assert_array_equal(value, PARAMETERS[name].astype(np.float64))


def test_fewer_windows_of_training_data(model: rhn.Model) -> None:
    seen: list[int] = []
    gradient_roots(model, TRAIN, replace(RMS, dynamic_windows=2), seen.append)
    assert seen == [21, 21]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dynamic_rule", "adam"),
        ("dynamic_rate", 0.0),
        ("dynamic_length", 0),
        ("dynamic_decay", -1.0),
        ("dynamic_epsilon", 0),
        ("dynamic_batch_size", "many"),
        ("dynamic_windows", 0),
        ("max_grad_norm", float("nan")),
        ("part", "all"),
    ],
)
def test_impossible_options_are_named_before_anything_is_loaded(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"{name}={value!r} is not accepted: expected"):
        evaluate_dynamic("reference", {**vars(SGD), "checkpoint": "nowhere", name: value}, {})


@pytest.mark.parametrize("change", [{"dynamic_batch_size": 10**20}, {"dynamic_length": 10**20}])
def test_windows_longer_than_the_data_are_named(model: rhn.Model, change: dict[str, int]) -> None:
    (option,) = change
    with pytest.raises(OptionError, match=f"{option}={10**20}.* tokens are too few"):
        gradient_roots(model, TRAIN, replace(RMS, **change))


@pytest.mark.parametrize("rule", ["sgd", "rms"])
def test_the_command_reports_it_apart(call: Callable[..., Any], capsys: pytest.CaptureFixture[str], rule: str) -> None:
    value = call(evaluate_dynamic, dynamic_rule=rule, dynamic_batch_size=4, part="valid")
    static, dynamic, written = capsys.readouterr().out.splitlines()[-3:]
    assert "valid (static, batch 1): bits per character" in static
    assert f"dynamic evaluation, not comparable with static scores; {rule}" in dynamic
    assert f"bits per character {value:.4g}" in dynamic
    result = json.loads(Path(written.removeprefix("written: ").split(", ")[0]).read_text())
    assert result["score"]["value"] == value
    assert result["options"]["dynamic_rule"] == rule
