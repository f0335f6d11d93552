import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import rhn
from rhn.spec import reference
from rhn.training.evaluate.neural_cache import (
    NeuralCache,
    evaluate_cache,
    evaluate_with_cache,
    mixed,
    with_states_as_logits,
)
from rhn.training.evaluate.stream import evaluate
from rhn.training.options import OptionError, Options

CONFIG = rhn.RHNConfig(vocab_size=5, hidden_size=4, recurrence_depth=2)
PARAMETERS = rhn.initial_parameters(CONFIG, seed=2, init_scale=0.9)
STREAM = np.random.default_rng(4).integers(0, 5, 250)


def brute_force(states: NDArray, stream: NDArray, t: int, window: int, theta: float) -> NDArray:
    """p_cache over the vocabulary for the token after position t, by the formula, one term at a time."""
    votes = np.zeros(CONFIG.vocab_size)
    for i in range(max(0, t - window), t):
        votes[stream[i + 1]] += np.exp(theta * states[t] @ states[i])
    return votes / votes.sum()


@pytest.mark.parametrize("window", [1, 7, 100, 1000])
@pytest.mark.parametrize("tied", [True, False])
def test_it_is_the_formula_of_the_paper(window: int, tied: bool) -> None:
    config = rhn.RHNConfig(vocab_size=5, hidden_size=4, recurrence_depth=2, tie_weights=tied, num_layers=2)
    parameters = rhn.initial_parameters(config, seed=2, init_scale=0.9)
    model = rhn.load_backend("reference").build(*with_states_as_logits(config, parameters), "float64")
    logits, _ = reference.forward(config, parameters, STREAM[None, :-1])
    states, s = [], None
    for token in STREAM[:-1]:
        _, s = reference.forward(config, parameters, np.array([[token]]), s)
        states.append(s[-1][0])
    p = np.exp(-reference.cross_entropy(logits, STREAM[None, 1:])[0])
    nats = []
    for t, token in enumerate(STREAM[1:]):
        cached = brute_force(np.array(states), STREAM, t, window, 1.5)[token] if t else p[t]
        nats.append(-np.log(0.8 * p[t] + 0.2 * cached))
    static, scores = evaluate_with_cache(model, STREAM, "word", window, [0.3, 1.5], [0.1, 0.2])
    assert scores[1.5, 0.2].nats == pytest.approx(np.mean(nats), rel=1e-12)
    assert static.nats == pytest.approx(-np.log(p).mean(), rel=1e-12)
    assert scores[1.5, 0.2].tokens == static.tokens == len(STREAM) - 1


@given(
    st.integers(1, 12),
    st.floats(0, 50),
    st.floats(0, 1, exclude_max=True),
    st.lists(st.integers(0, 4), min_size=1, max_size=20),
    st.integers(0, 2**32 - 1),
)
def test_the_probabilities_of_the_vocabulary_sum_to_one(
    window: int, theta: float, share: float, past: list[int], seed: int
) -> None:
    states = np.random.default_rng(seed).uniform(-1, 1, (len(past) + 1, 3))
    logs = []
    for word in range(5):
        cache = NeuralCache(window, [theta])
        cache.log_probabilities(states[:-1], np.array(past))
        logs.append(cache.log_probabilities(states[-1:], np.array([word]))[0, 0])
    assert np.exp(logs).sum() == pytest.approx(1)
    softmax = np.random.default_rng(seed).dirichlet(np.ones(5))
    assert np.exp(mixed(np.log(softmax), np.array(logs), share)).sum() == pytest.approx(1)


def test_how_the_stream_is_cut_changes_nothing_and_the_memory_is_bounded() -> None:
    states, targets = np.random.default_rng(0).normal(size=(40, 3)), STREAM[:40]
    whole = NeuralCache(6, [0.5]).log_probabilities(states, targets)
    cache = NeuralCache(6, [0.5])
    pieces = [cache.log_probabilities(states[i : i + 7], targets[i : i + 7]) for i in range(0, 40, 7)]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, rtol=1e-12)
    assert cache._states is not None
    assert len(cache._states) == len(cache._followers) == 6
    assert np.isnan(whole[0, 0])
    assert not np.isnan(whole[0, 1:]).any()


def test_without_a_share_it_is_the_static_score() -> None:
    model = rhn.load_backend("reference").build(*with_states_as_logits(CONFIG, PARAMETERS), "float64")
    plain = rhn.load_backend("reference").build(CONFIG, PARAMETERS, "float64")
    _, scores = evaluate_with_cache(model, STREAM, "word", 9, [1.0], [0.0])
    assert scores[1.0, 0.0].nats == pytest.approx(evaluate(plain, STREAM, "word").nats, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "value"), [("cache_window", 0), ("cache_theta", -0.1), ("cache_lambda", 1.0), ("part", "all")]
)
def test_impossible_options_are_named_before_anything_is_loaded(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"{name}={value!r} is not accepted: expected"):
        evaluate_cache("reference", {**vars(Options()), "checkpoint": "nowhere", name: value}, {})


@pytest.mark.parametrize("words", [{}, {"cache_theta": 0.7}, {"cache_theta": 0.7, "cache_lambda": 0.3}], ids=str)
def test_the_command_reports_it_apart(
    call: Callable[..., Any], capsys: pytest.CaptureFixture[str], words: dict[str, float]
) -> None:
    value = call(evaluate_cache, cache_window=20, part="test", **words)
    static, cached, written = capsys.readouterr().out.splitlines()[-3:]
    assert "test (static, batch 1): bits per character" in static
    assert "neural cache, not comparable with static scores; window 20," in cached
    assert ("chosen on valid" in cached) == (len(words) < 2)
    assert f"bits per character {value:.4g}" in cached
    result = json.loads(Path(written.removeprefix("written: ").split(", ")[0]).read_text())
    assert result["score"]["value"] == value
    assert words.items() <= result["options"].items()
    assert result["static_score"]["tokens"] == result["score"]["tokens"]
    if result["grid"]:
        best = min(result["grid"], key=lambda row: row["valid"])
        assert (best["theta"], best["lambda"]) == (
            result["options"]["cache_theta"],
            result["options"]["cache_lambda"],
        )
