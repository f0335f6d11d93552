"""Optuna's samplers and pruners, with a journal file that several processes share. optuna-dashboard can open it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from rhn.training.search.folder import Trial
from rhn.training.search.request import Request
from rhn.training.search.space import Dimension

_STATES: dict[str | None, TrialState] = {
    "finished": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.FAIL,
    "failed": TrialState.FAIL,
}


class OptunaStudy:
    """See `rhn.training.search.samplers.Sampler`. The trials are kept in the search folder; Optuna has a copy.

    Args:
        request: names the sampler and the pruner.
        journal: Optuna's file; it is created if it does not exist.
    """

    def __init__(self, request: Request, journal: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # the search prints its own messages
        self._how, self._space = request.how, request.space
        self._distributions = {d.key: _distribution(d) for d in request.space.dimensions}
        self._journal = journal

    def start(self, number: int, before: Trial | None, checks: list[float]) -> Trial:
        self._study = self._open(number)
        draw = before.draw if before else None
        if before is not None and before.optuna_number is not None:  # left by a process that ended
            self._study.tell(before.optuna_number, state=TrialState.FAIL, skip_if_finished=True)
        if draw is None and self._how.sampler == "random":
            draw = self._space.draw(self._how.search_seed, number)
        if draw is not None:
            self._study.enqueue_trial({d.key: _for_optuna(d, draw[d.key]) for d in self._space.dimensions})
        self._trial = self._study.ask(self._distributions)
        for check, nats in enumerate(checks):
            self._trial.report(nats, check)
        if draw is None:
            draw = {d.key: _from_optuna(d, self._trial.params[d.key]) for d in self._space.dimensions}
        return replace(before or Trial(number, draw), optuna_number=self._trial.number)

    def should_prune(self, check: int, nats: float) -> bool:
        self._trial.report(nats, check)
        return self._trial.should_prune()

    def end(self, trial: Trial) -> None:
        is_scored = trial.outcome == "finished"  # of a pruned trial, Optuna has the reported scores
        self._study.tell(self._trial, trial.valid_nats if is_scored else None, _STATES[trial.outcome])

    def _open(self, number: int) -> optuna.Study:
        """The study, with a sampler seeded for trial `number`: several processes must not draw the same values."""
        seed = random.Random(f"{self._how.search_seed} {number}").getrandbits(32)
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(self._journal))),
            study_name="search",
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=seed) if self._how.sampler == "tpe" else None,
            pruner=optuna.pruners.MedianPruner() if self._how.pruner == "median" else optuna.pruners.NopPruner(),
        )


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.form == "choice":
        return CategoricalDistribution(dimension.labels)
    low, high = dimension.values
    kind = IntDistribution if dimension.is_integer else FloatDistribution
    return kind(low, high, log=dimension.form == "log")


def _for_optuna(dimension: Dimension, value: Any) -> Any:
    return dimension.label(value) if dimension.form == "choice" else value


def _from_optuna(dimension: Dimension, value: Any) -> Any:
    return dimension.values[dimension.labels.index(value)] if dimension.form == "choice" else value
