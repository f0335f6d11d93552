import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import rhn
from rhn.training.evaluate.baseline import order_two_nats
from rhn.training.evaluate.generate import generate
from rhn.training.evaluate.stream import evaluate, evaluate_checkpoint
from rhn.training.options import DEFAULTS, OptionError
from rhn.training.score import Score, in_units, score_of_pieces, score_of_windows
from rhn_datasets import load_corpus


@pytest.fixture(scope="module")
def model() -> rhn.Model:
    config = rhn.RHNConfig(vocab_size=7, hidden_size=5, recurrence_depth=2)
    return rhn.load_backend("reference").build(
        config, rhn.initial_parameters(config, seed=1, init_scale=1.0), "float64"
    )


@pytest.fixture(scope="module")
def stream() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 7, 83, dtype=np.uint8)


@pytest.mark.parametrize("bptt_length", [1, 7, 82, 500])
def test_the_window_length_does_not_matter_at_batch_one(model: rhn.Model, stream: np.ndarray, bptt_length: int) -> None:
    whole = evaluate(model, stream, "char", bptt_length=82)
    score = evaluate(model, stream, "char", bptt_length=bptt_length)
    assert score.tokens == 82  # all but the first
    assert score.nats == pytest.approx(whole.nats, rel=1e-13)


def test_a_batched_score_drops_what_the_authors_drop(model: rhn.Model, stream: np.ndarray) -> None:
    assert evaluate(model, stream, "char", batch_size=4, bptt_length=6, drop_last=True).tokens == 4 * 18
    assert evaluate(model, stream, "char", batch_size=4, bptt_length=6).tokens == 4 * 19


def test_progress_counts_every_token(model: rhn.Model, stream: np.ndarray) -> None:
    seen: list[int] = []
    evaluate(model, stream, "char", bptt_length=9, progress=seen.append)
    assert sum(seen) == 82


def test_units() -> None:
    assert in_units(math.log(50), "word") == pytest.approx(50)
    assert in_units(math.log(2), "char") == 1
    assert in_units(1e6, "word") == math.inf
    assert str(Score(math.log(2), math.nan, 1234, "byte")) == "bits per byte 1 over 1,234 tokens"


def test_the_standard_error_is_that_of_the_mean_for_equal_windows() -> None:
    nll = np.array([1.0, 2.0, 4.0, 5.0]) * 10
    score = score_of_windows(nll, np.full(4, 10), "char")
    assert score.nats == 3.0
    assert score.standard_error == pytest.approx(np.std(nll / 10, ddof=1) / 2)


def test_short_windows_are_gathered_in_blocks_before_their_spread_is_taken() -> None:
    counts = np.full(60, 5)  # 300 tokens
    nll = np.random.default_rng(1).random(60)
    blocks = score_of_windows(nll.reshape(3, 20).sum(axis=1), np.full(3, 100), "char")
    pieces = score_of_pieces(nll, counts, "char")
    assert pieces.nats == pytest.approx(blocks.nats, rel=1e-14)
    assert pieces.standard_error == pytest.approx(blocks.standard_error, rel=1e-12)
    assert pieces.tokens == 300
    whole = score_of_pieces(nll[:3], np.array([250, 250, 40]), "char")  # longer than a block
    assert whole.standard_error == pytest.approx(
        score_of_windows(nll[:3], np.array([250, 250, 40]), "char").standard_error
    )


@pytest.mark.parametrize("temperature", [0.7, 3.0])
def test_temperature_divides_the_logits(stream: np.ndarray, temperature: float) -> None:
    """As a softmax does whose parameters are divided."""
    config = rhn.RHNConfig(vocab_size=7, hidden_size=5, recurrence_depth=2, tie_weights=False)
    parameters = rhn.initial_parameters(config, seed=1, init_scale=1.0)
    divided = {name: p / temperature if name.startswith("softmax") else p for name, p in parameters.items()}
    backend = rhn.load_backend("reference")
    score, expected = (
        evaluate(backend.build(config, p, "float64"), stream, "char", bptt_length=9, temperature=t)
        for p, t in ((parameters, temperature), (divided, 1.0))
    )
    assert score.tokens == expected.tokens
    # The divided parameters are rounded to float32.
    assert score.nats == pytest.approx(expected.nats, rel=1e-6)


def test_the_command_scores_in_either_way(
    call: Callable[..., Any], checkpoint: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    full = call(evaluate_checkpoint, batch_size=3, bptt_length=4)
    batched = call(evaluate_checkpoint, evaluation="authors_batched", batch_size=3, bptt_length=4)
    forgetful = call(evaluate_checkpoint, evaluation="windows", bptt_length=4)
    cool = call(evaluate_checkpoint, temperature=0.5)
    out = capsys.readouterr().out
    assert "valid (batch 1): bits per character" in out
    assert "test (batch 1, from a zero state every 4 tokens): bits per character" in out
    how = "as in the authors' programs: batch 3, windows of 4, incomplete windows dropped"
    assert f"test ({how}): bits per character" in out
    assert "test (batch 1; temperature 0.5)" in out

    corpus = load_corpus("text", str(checkpoint.with_name("text.txt")))
    parameters, metadata = rhn.load_checkpoint(checkpoint)
    model = rhn.load_backend("reference").build(rhn.RHNConfig(**metadata["config"]), parameters, "float64")
    assert full["test"] == evaluate(model, corpus.test, "char").value
    assert cool["valid"] == evaluate(model, corpus.valid, "char", temperature=0.5).value
    nll = 0.0
    for start in range(0, len(corpus.test) - 1, 4):
        piece = corpus.test[start : start + 5]
        nll += evaluate(model, piece, "char").nats * (len(piece) - 1)
    assert forgetful["test"] == pytest.approx(nll / (len(corpus.test) - 1) / math.log(2), rel=1e-13)
    expected = evaluate(model, corpus.test, "char", batch_size=3, bptt_length=4, drop_last=True)
    assert batched["test"] == expected.value
    assert f"over {expected.tokens} tokens" in out


@pytest.mark.parametrize(
    ("name", "value"), [("evaluation", "quick"), ("temperature", 0), ("batch_size", 0), ("bptt_length", "long")]
)
def test_impossible_options_are_named_before_anything_is_loaded(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"{name}={value!r} is not accepted: expected"):
        evaluate_checkpoint("reference", {**DEFAULTS, "checkpoint": "nowhere", name: value}, {})


def test_the_baseline_counts_trigrams() -> None:
    train, test = np.array([0, 1, 0, 1, 0]), np.array([0, 1, 0, 0])
    # after 01 came 0 twice: p(0|01) = 3/4; after 10 came 1 once: p(0|10) = 1/3
    assert order_two_nats(train, test, 2) == pytest.approx(-(math.log(3 / 4) + math.log(1 / 3)) / 2)
    assert order_two_nats(train, test, 10_000) is None


def test_generation_depends_on_its_seed_alone(model: rhn.Model) -> None:
    prompt = np.array([1, 2])
    texts = [list(generate(model, prompt, 20, seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert all(0 <= token < 7 for token in texts[0])


def test_generation_with_one_candidate_is_greedy(model: rhn.Model) -> None:
    cold = list(generate(model, np.array([1]), 15, temperature=1e-6))
    assert cold == list(generate(model, np.array([1]), 15, top_k=1))


@pytest.mark.parametrize(("options", "name"), [({"temperature": 0.0}, "temperature"), ({"top_k": 0}, "top_k")])
def test_generation_refuses_impossible_options(model: rhn.Model, options: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=.* is not accepted"):
        next(generate(model, np.array([1]), 5, **options))
    with pytest.raises(ValueError, match="prompt"):
        next(generate(model, np.array([], dtype=int), 5))
