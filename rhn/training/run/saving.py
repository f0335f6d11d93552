"""Writes a training run to its folder, and prints a line per epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rhn.checkpoint import Checkpoint
from rhn.training.run.folder import RunFolder
from rhn.training.run.progress import Progress
from rhn.training.score import UNITS, in_units
from rhn.training.terminal.console import say

METRICS = ("train_nats", "valid_nats", "test_nats", "learning_rate", "gradient_norm", "tokens_per_second")

LogScalar = Callable[[str, float, int], None]


@dataclass(frozen=True)
class SavedRun:
    """Stores what a trainer reports in the folder of the run; see `rhn.training.loop.Run`.

    Attributes:
        folder: the folder of the run.
        description: model, data and options, for the metadata of checkpoints.
        progress: where the run stands; the trainer changes it.
        level: what a token of the data is.
        epochs: the number of epochs of the whole run.
        loggers: functions that are called with name, value and step for each metric of each epoch.
        signals: the signals received so far; one is enough to stop.
    """

    folder: RunFolder
    description: Mapping[str, Any]
    progress: Progress
    level: str
    epochs: int
    loggers: list[LogScalar]
    signals: list[int]

    def save_last(self, checkpoint: Checkpoint) -> None:
        checkpoint.save(self.folder.last, {**self.description, "progress": asdict(self.progress)})

    def save_best(self, checkpoint: Checkpoint) -> None:
        checkpoint.save(self.folder.best, {**self.description, "progress": asdict(self.progress)})

    def note_epoch(self, row: dict[str, Any]) -> None:
        self.folder.write_metrics(self.progress.history)
        say(_epoch_line(row, self.epochs, self.level))
        for name in METRICS:
            for log_scalar in self.loggers:
                log_scalar(name, row[name], row["step"])

    def stop_requested(self) -> bool:
        return bool(self.signals)


@dataclass(frozen=True)
class UnsavedRun:
    """For the processes that are not the first of a run: they store nothing, because the first process does.

    Attributes:
        signals: as in `SavedRun`.
    """

    signals: list[int]

    def save_last(self, checkpoint: Checkpoint) -> None: ...

    def save_best(self, checkpoint: Checkpoint) -> None: ...

    def note_epoch(self, row: dict[str, Any]) -> None: ...

    def stop_requested(self) -> bool:
        return bool(self.signals)


def _epoch_line(row: Mapping[str, Any], epochs: int, level: str) -> str:
    train, valid, test = (in_units(row[f"{part}_nats"], level) for part in ("train", "valid", "test"))
    return (
        f"epoch {row['epoch']}/{epochs}: {UNITS[level]} train {train:.4g}, valid {valid:.4g}, test {test:.4g};"
        f" rate {row['learning_rate']:.3g}, {row['tokens_per_second']:,.0f} tokens/s, {row['seconds']:.0f} s,"
        f" {row['waiting_seconds'] / row['seconds']:.1%} of it waiting for data"
    )
