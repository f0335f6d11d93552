"""The learning rate of an epoch, and when to stop: pure functions of the options and of the validation scores so far.

These functions keep no state, so that a run can be resumed exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SCHEDULES = ("exponential", "constant", "cosine", "plateau")


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes from epoch to epoch.

    Args:
        schedule: "exponential", the paper's: divided by `lr_decay` every epoch from `decay_after` on; "constant";
            "cosine": half a cosine from `learning_rate` to 0 over `epochs`; "plateau": divided by `lr_decay` after
            every `plateau_patience` epochs without a better validation score.
        learning_rate: learning rate of the first epoch, above 0.
        lr_decay: divisor of the learning rate, above 0.
        decay_after: the first decayed epoch of "exponential", counted from 0.
        plateau_patience: number of epochs that make a plateau, at least 1.
        epochs: number of epochs of the whole run.
    """

    schedule: str
    learning_rate: float
    lr_decay: float
    decay_after: int
    plateau_patience: int
    epochs: int

    def rate(self, epoch: int, valid_scores: Sequence[float]) -> float:
        """Learning rate of epoch `epoch`, counted from 0, given the validation scores (nats) of the earlier epochs."""
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * epoch / self.epochs))
        if self.schedule == "plateau":
            return self.learning_rate / self.lr_decay ** _plateaus(valid_scores, self.plateau_patience)
        return self.learning_rate / self.lr_decay ** max(epoch - self.decay_after + 1, 0)


def epochs_since_best(valid_scores: Sequence[float]) -> int:
    """How many epochs ago the best score was reached; 0 if it is the newest or there is none."""
    return len(valid_scores) - 1 - valid_scores.index(min(valid_scores)) if valid_scores else 0


def averaging_is_due(valid_scores: Sequence[float], interval: int) -> bool:
    """The trigger of NT-ASGD (Merity et al. 2018): the newest score is worse than the best score before the last
    `interval` scores."""
    return len(valid_scores) > interval and valid_scores[-1] > min(valid_scores[:-interval])


def _plateaus(valid_scores: Sequence[float], patience: int) -> int:
    """How often `patience` epochs in a row brought no better score."""
    best, waiting, plateaus = math.inf, 0, 0
    for score in valid_scores:
        waiting = 0 if score < best else waiting + 1
        best = min(best, score)
        if waiting == patience:
            plateaus, waiting = plateaus + 1, 0
    return plateaus
