import math

import pytest

from rhn.training.schedules import Schedule, averaging_is_due, epochs_since_best


def schedule(name: str) -> Schedule:
    return Schedule(name, learning_rate=0.4, lr_decay=2.0, decay_after=3, plateau_patience=2, epochs=10)


def rates(name: str, scores: list[float]) -> list[float]:
    """The rate of every epoch of a run with these validation scores."""
    return [schedule(name).rate(epoch, scores[:epoch]) for epoch in range(len(scores))]


def test_constant() -> None:
    assert rates("constant", [3, 2, 1]) == [0.4] * 3


def test_exponential_is_the_papers() -> None:
    assert rates("exponential", [1.0] * 6) == [0.4, 0.4, 0.4, 0.2, 0.1, 0.05]


def test_cosine_starts_at_the_rate_and_ends_at_nothing() -> None:
    all_rates = rates("cosine", [1.0] * 10)
    assert all_rates[0] == 0.4
    assert all_rates[5] == pytest.approx(0.2)
    assert schedule("cosine").rate(10, []) == pytest.approx(0, abs=1e-16)
    assert all_rates == sorted(all_rates, reverse=True)


def test_plateau_waits_for_its_patience_and_counts_anew() -> None:
    scores = [5, 4, 4, 4, 4, 3, 3.5, 3.5, 3.5, 2]
    assert rates("plateau", scores) == [0.4, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.2, 0.1, 0.1]


def test_epochs_since_best() -> None:
    assert epochs_since_best([]) == 0
    assert epochs_since_best([3.0, 2.0]) == 0
    assert epochs_since_best([3.0, 2.0, 2.0, math.inf]) == 2


def test_averaging_starts_when_validation_stops_falling() -> None:
    assert not averaging_is_due([3.0, 2.0, 1.0], 2)
    assert not averaging_is_due([3.0, 1.0, 2.0], 2)  # better than all but the last two
    assert averaging_is_due([1.0, 3.0, 2.0], 2)
