"""The folder of a search, which several processes can share: its files, each written whole or not at all, and locks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rhn.files import remove_leftovers, write_atomically
from rhn.training.options import OptionError

OUTCOMES = ("finished", "pruned", "diverged", "failed")


@dataclass(frozen=True)
class Trial:
    """One trial of a search. Everything in it is JSON.

    Attributes:
        number: counted from 1.
        draw: the values drawn from the space, by the keys of its dimensions.
        outcome: one of `OUTCOMES`; None until the trial has ended.
        valid_nats: the best validation score, in nats per token; None if there is none.
        why: the reason why the trial diverged or failed, in one sentence.
        epochs: number of epochs trained.
        seconds: time spent training.
        starts: for each start of the run, the time of its newest checkpoint in nanoseconds; 0 without one.
        optuna_number: number of the trial in Optuna's study; None without Optuna.
    """

    number: int
    draw: dict[str, Any]
    outcome: str | None = None
    valid_nats: float | None = None
    why: str = ""
    epochs: float = 0.0
    seconds: float = 0.0
    starts: list[int] = field(default_factory=list)
    optuna_number: int | None = None


@dataclass(frozen=True)
class SearchFolder:
    """The folder of one search.

    It holds `search.json`, the options and the space; `trials/0001.json`, the draw and the outcome of a trial;
    `runs/0001`, its run folder; `optuna.journal`, Optuna's own record, if Optuna is used; and `report.html`.
    """

    path: Path

    @property
    def journal(self) -> Path:
        return self.path / "optuna.journal"

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    def run(self, number: int) -> Path:
        """The run folder of trial `number`."""
        return self.runs / f"{number:04}"

    def open(self, identity: Mapping[str, Any]) -> None:
        """Make the folder, or check that an existing folder belongs to the same search.

        Raises:
            OptionError: the folder belongs to another search, or cannot be made.
        """
        try:
            (self.path / "trials").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OptionError(f"the folder {self.path} cannot be made ({error.strerror})") from error
        file = self.path / "search.json"
        with self.locked():
            if not file.exists():
                write_atomically(file, (json.dumps(identity, indent=2) + "\n").encode())
        before = _read(file)
        differing = [name for name in {**before, **identity} if before.get(name) != identity.get(name)]
        if differing:
            was, now = (values.get(differing[0], "the default") for values in (before, identity))
            raise OptionError(
                f"{self.path} holds another search ({differing[0]} is {was} there, and {now} here): choose another name"
                " with search=NAME"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of what all processes of the search share; waits for it."""
        with FileLock(self.path / ".lock"):
            yield

    @contextmanager
    def trial_lock(self, number: int) -> Iterator[bool]:
        """Hold the lock of trial `number`; False if another process holds it. A killed process loses its locks."""
        lock = FileLock(self.path / "trials" / f".{number:04}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            remove_leftovers(self.path / "trials", self._file(number).name)
            yield True
        finally:
            lock.release()

    def trial(self, number: int) -> Trial | None:
        """Trial `number`; None if it was never started."""
        file = self._file(number)
        return _trial(file) if file.exists() else None

    def trials(self) -> list[Trial]:
        """All trials that were started, in order."""
        return [_trial(file) for file in sorted((self.path / "trials").glob("*.json"))]

    def write(self, trial: Trial) -> None:
        write_atomically(self._file(trial.number), (json.dumps(asdict(trial), indent=2) + "\n").encode())

    def _file(self, number: int) -> Path:
        return self.path / "trials" / f"{number:04}.json"


def best_of(trials: Iterable[Trial]) -> Trial | None:
    """The finished trial with the best validation score."""
    scores = [(trial.valid_nats, trial.number, trial) for trial in trials if trial.outcome == "finished"]
    return min(scores)[2] if scores else None


def _trial(file: Path) -> Trial:
    values = _read(file)
    if values.keys() != {each.name for each in fields(Trial)} or values["outcome"] not in (None, *OUTCOMES):
        raise OptionError(f"{file} is damaged; remove it to run the trial again")
    return Trial(**values)


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{file} is damaged ({error})") from error
    if not isinstance(values, dict):
        raise OptionError(f"{file} is damaged: expected names and values")
    return values
