"""A run as its folder tells it, be it finished, interrupted or still under way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rhn.training.paper import PaperRow, paper_result
from rhn.training.score import UNITS, in_units
from rhn_datasets import CORPORA


class RunRecordError(ValueError):
    """A folder is not that of a run, or one of its files is damaged; the message is one sentence for the user."""


@dataclass(frozen=True)
class RunRecord:
    """What the files of a run folder say; what a missing file would say is empty.

    Attributes:
        name: of the folder.
        options: `options.json`, what was asked for.
        environment: `environment.json`, backend, versions and machine.
        history: `metrics.jsonl`, one row per finished epoch.
        summary: `summary.json`, the final figures.
        sample: `sample.txt`, text that the model wrote.
        results: what the other commands found out about the run's checkpoints: by file, names and values to show.
    """

    name: str
    options: dict[str, Any]
    environment: dict[str, str]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    sample: str
    results: dict[str, dict[str, str]]

    @property
    def finished(self) -> bool:
        """Whether the final figures are there."""
        return bool(self.summary)

    @property
    def level(self) -> str | None:
        """What a token is: "word", "char" or "byte"; None if the options are missing."""
        kind = CORPORA.get(self.options.get("dataset", ""))
        return self.options.get("level") or (kind.levels[0] if kind else None)

    @property
    def unit(self) -> str:
        """In which scores are given."""
        return "nats per token" if self.level is None else UNITS[self.level]

    @property
    def best_row(self) -> dict[str, Any] | None:
        """The row of the history with the best validation score."""
        return min(self.history, key=lambda row: row["valid_nats"], default=None)

    @property
    def tokens_per_second(self) -> float | None:
        """Training speed: the median of the epochs."""
        return median(row["tokens_per_second"] for row in self.history) if self.history else None

    @property
    def waiting_fraction(self) -> float | None:
        """The part of the training time in which the model waited for data; None if it was not recorded."""
        waiting = [row["waiting_seconds"] for row in self.history if "waiting_seconds" in row]
        return sum(waiting) / sum(row["seconds"] for row in self.history) if waiting else None

    @property
    def paper(self) -> PaperRow | None:
        """The published model of the same architecture."""
        return paper_result(self.options)

    def score(self, part: str) -> float | None:
        """Of "valid" or "test": at batch 1 if the run is finished, else batched, after the best epoch so far."""
        if self.finished:
            return self.in_units(self.summary[part]["nats"])
        return self.in_units(self.best_row[f"{part}_nats"]) if self.best_row else None

    def in_units(self, nats: float) -> float:
        """Nats per token as `unit`."""
        return nats if self.level is None else in_units(nats, self.level)


def read_run(path: str | Path) -> RunRecord:
    """Read the folder of a run.

    Raises:
        RunRecordError: none of the files of a run is there, or one is damaged.
    """
    folder = Path(path)
    if not any((folder / name).is_file() for name in _FILES):
        raise RunRecordError(f"{folder} is not the folder of a run: it holds none of {', '.join(_FILES)}")
    contents = {
        field: _read(folder / name, parse) if (folder / name).is_file() else nothing
        for name, (field, parse, nothing) in _FILES.items()
    }
    others = {file.name: _read(file, json.loads) for file in sorted(folder.glob("*.json")) if file.name not in _FILES}
    results = {name: c["shown"] for name, c in others.items() if isinstance(c, dict) and "shown" in c}
    return RunRecord(name=folder.resolve().name, results=results, **contents)


def _read(file: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(file.read_text(encoding="utf-8"))
    except ValueError as error:  # not UTF-8, or not JSON
        raise RunRecordError(f"{file} is damaged ({error})") from error


def _json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# Files of a run folder: the field of RunRecord that each fills, how it is parsed, and what stands for a missing one.
_FILES: dict[str, tuple[str, Callable[[str], Any], Any]] = {
    "options.json": ("options", json.loads, {}),
    "environment.json": ("environment", json.loads, {}),
    "metrics.jsonl": ("history", _json_lines, []),
    "summary.json": ("summary", json.loads, {}),
    "sample.txt": ("sample", str, ""),
}
