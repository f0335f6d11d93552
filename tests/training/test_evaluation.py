import math

import numpy as np
import pytest

import rhn
from rhn.training.baseline import order_two_nats
from rhn.training.evaluation import Score, evaluate, in_units, score_of_windows
from rhn.training.generation import generate


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
