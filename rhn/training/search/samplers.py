"""Samplers choose the options of each trial, and may prune a trial: random draws, or Optuna."""

from __future__ import annotations

import importlib.util
from typing import Any, Protocol

from rhn.training.search.folder import SearchFolder, Trial
from rhn.training.search.request import Request


class Sampler(Protocol):
    """Chooses the options of the trials that one process runs."""

    def start(self, number: int, before: Trial | None, checks: list[float]) -> Trial:
        """The trial `number`, ready to start. The caller holds the lock of the search folder.

        Args:
            number: number of the trial.
            before: the trial as an earlier process left it; the draw stays the same. None for a new trial.
            checks: the validation scores of the trial so far, in nats.
        """
        ...

    def should_prune(self, check: int, nats: float) -> bool:
        """Whether to end the current trial, whose validation number `check`, counted from 0, gave the score `nats`."""
        ...

    def end(self, trial: Trial) -> None:
        """Record how the current trial ended."""
        ...


class RandomSampler:
    """Independent random draws, each a pure function of the seed and the number of the trial."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def start(self, number: int, before: Trial | None, checks: list[float]) -> Trial:
        return before or Trial(number, self._request.space.draw(self._request.how.search_seed, number))

    def should_prune(self, check: int, nats: float) -> bool:
        return False

    def end(self, trial: Trial) -> None: ...


def sampler_for(request: Request, folder: SearchFolder) -> Sampler:
    """The sampler that the request asks for.

    Raises:
        ImportError: it needs Optuna, which is not installed.
    """
    how: dict[str, Any] = {"sampler": request.how.sampler, "pruner": request.how.pruner}
    if how == {"sampler": "random", "pruner": None}:
        return RandomSampler(request)
    if importlib.util.find_spec("optuna") is None:
        name = "sampler" if how["sampler"] != "random" else "pruner"
        raise ImportError(f"{name}={how[name]!r} needs Optuna, which is not installed: pip install optuna")
    from rhn.training.search.optuna_study import OptunaStudy

    return OptunaStudy(request, folder.journal)
