"""Reads the folder of a run, whether it is finished, interrupted or still running."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rhn.spec.arguments import check_integer, check_number
from rhn.text import one_line
from rhn.training.recipes.published_scores import PaperRow, paper_result
from rhn.training.score import UNITS, in_units
from rhn_datasets import CORPORA


class RunRecordError(ValueError):
    """A folder is not the folder of a run, or one of its files is damaged; the message is one sentence for the user."""


@dataclass(frozen=True)
class ResultRecord:
    """The result of another command for a checkpoint of the run.

    Attributes:
        shown: names and values to show in the report.
        picture: a PNG; empty if there is none.
    """

    shown: dict[str, Any]
    picture: bytes


@dataclass(frozen=True)
class RunRecord:
    """The contents of the files of a run folder; empty for a missing file.

    Attributes:
        name: name of the folder, in one printable line.
        options: from `options.json`, the options.
        environment: from `environment.json`, backend, versions and machine.
        history: from `metrics.jsonl`, one row per check: per finished epoch, or per `evaluate_steps` steps.
        summary: from `summary.json`, the final scores.
        sample: from `sample.txt`, text sampled from the model.
        changes: from `changes.json`, the options that were changed at a resume: step, option, before, after.
        warnings: from `warnings.json`, all warnings of the run.
        results: results of the other commands for the run's checkpoints, by file name without suffix.
    """

    name: str
    options: dict[str, Any]
    environment: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    sample: str
    changes: list[dict[str, Any]]
    warnings: list[str]
    results: dict[str, ResultRecord]

    @property
    def finished(self) -> bool:
        """Whether the run has its final scores."""
        return bool(self.summary)

    @property
    def level(self) -> str | None:
        """What a token is: "word", "char" or "byte"; None if the options are missing."""
        kind = CORPORA.get(self.options.get("dataset", ""))
        return self.options.get("level") or (kind.levels[0] if kind else None)

    @property
    def unit(self) -> str:
        """The unit of the scores."""
        return "nats per token" if self.level is None else UNITS[self.level]

    @property
    def best_row(self) -> dict[str, Any] | None:
        """The row of the history with the best validation score."""
        return min(self.history, key=lambda row: row["valid_nats"], default=None)

    @property
    def epochs(self) -> tuple[float, ...]:
        """The number of finished epochs at each check."""
        return tuple(row.get("epochs_done", row["epoch"]) for row in self.history)

    @property
    def tokens_per_second(self) -> float | None:
        """Training speed: the median of the epochs."""
        return median(row["tokens_per_second"] for row in self.history) if self.history else None

    @property
    def waiting_fraction(self) -> float | None:
        """The part of the training time in which the model waited for data; None if it was not recorded."""
        waiting = [row["waiting_seconds"] for row in self.history if "waiting_seconds" in row]
        seconds = sum(row["seconds"] for row in self.history)
        return sum(waiting) / seconds if waiting and seconds else None

    @property
    def paper(self) -> PaperRow | None:
        """The published model of the same architecture."""
        return paper_result(self.options)

    def score(self, part: str) -> float | None:
        """The score on the "valid" or "test" part: at batch 1 if the run is finished, otherwise in batches, after the
        best epoch so far."""
        if self.finished:
            return self.in_units(self.summary[part]["nats"])
        return self.in_units(self.best_row[f"{part}_nats"]) if self.best_row else None

    def in_units(self, nats: float) -> float:
        """Nats per token, converted to `unit`."""
        return nats if self.level is None else in_units(nats, self.level)


def read_run(path: str | Path) -> RunRecord:
    """Read the folder of a run.

    Raises:
        RunRecordError: none of the files of a run is there, or one is damaged or cannot be read.
    """
    folder = Path(path)
    contents, results = {}, {}
    try:
        for name, (field, parse, nothing) in _FILES.items():
            contents[field] = _read(folder / name, parse) if (folder / name).is_file() else nothing
        for file in sorted(folder.glob("*.json")):
            shown = None if file.name in _FILES else _read(file, _result)
            if shown is not None:
                results[file.stem] = ResultRecord(shown, _picture(file.with_suffix(".png")))
        name = one_line(folder.resolve().name)
    except OSError as error:
        raise RunRecordError(f"{one_line(str(folder))} cannot be read: {error.strerror}") from error
    if not any((folder / name).is_file() for name in _FILES):
        expected = ", ".join(_FILES)
        raise RunRecordError(f"{one_line(str(folder))} is not the folder of a run: it holds none of {expected}")
    return RunRecord(name=name, results=results, **contents)


def _read(file: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise RunRecordError(f"{one_line(str(file))} is damaged: it is nested too deeply") from error
    except (ValueError, OverflowError) as error:  # not UTF-8, not JSON, or not what a run writes
        what = textwrap.shorten(one_line(str(error)), 200)  # the message may quote a long value
        raise RunRecordError(f"{one_line(str(file))} is damaged: {what}") from error


# ---------------------------------------------------------------------------------------------------------------------
# Checks of the files. Only values that the pages compute with are checked; everything else is shown as it is.
# ---------------------------------------------------------------------------------------------------------------------


def _options(text: str) -> dict[str, Any]:
    options = _object(json.loads(text))
    if not isinstance(options.get("dataset", ""), str):
        raise ValueError("dataset is not a text")
    if options.get("level") not in (None, *UNITS):
        raise ValueError(f"level is none of {', '.join(UNITS)}")
    return options


def _environment(text: str) -> dict[str, Any]:
    return _object(json.loads(text))


def _history(text: str) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
        try:
            rows.append(_epoch(line))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    return rows


def _epoch(line: str) -> dict[str, Any]:
    row = _object(json.loads(line))
    _counts(row, "epoch", least=1)
    if "epochs_done" in row:
        check_number("epochs_done", row["epochs_done"])
    _numbers(row, "train_nats", "valid_nats", "test_nats", "learning_rate", "gradient_norm")
    for name in ("tokens_per_second", "seconds", *({"waiting_seconds"} & set(row))):
        check_number(name, _entry(row, name), zero=True)
    return row


def _summary(text: str) -> dict[str, Any]:
    summary = _object(json.loads(text))
    if not summary:
        return {}
    _counts(summary, "parameters")
    if _entry(summary, "order_two_baseline") is not None:
        _numbers(summary, "order_two_baseline")
    for part in ("valid", "test"):
        score = _object(_entry(summary, part), part)
        _numbers(score, "nats", "standard_error")
        _counts(score, "tokens")
    return summary


def _changes(text: str) -> list[dict[str, Any]]:
    changes = [_object(change, "an entry") for change in _list(text)]
    for change in changes:
        _counts(change, "step")
        for name in ("option", "before", "after"):
            _entry(change, name)
    return changes


def _warnings(text: str) -> list[str]:
    warnings = _list(text)
    if not all(isinstance(warning, str) for warning in warnings):
        raise ValueError("an entry is not a text")
    return warnings


def _result(text: str) -> dict[str, Any] | None:
    """The entry "shown" of a result file; None if it is another kind of file."""
    content = json.loads(text)
    return _object(content["shown"], "shown") if isinstance(content, dict) and "shown" in content else None


def _picture(file: Path) -> bytes:
    """The content of a PNG file; empty if it is missing or another kind of file."""
    content = file.read_bytes() if file.is_file() else b""
    return content if content.startswith(b"\x89PNG") else b""


def _object(value: Any, name: str = "it") -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a JSON object")
    return value


def _list(text: str) -> list[Any]:
    value = json.loads(text)
    if not isinstance(value, list):
        raise ValueError("it is not a JSON list")
    return value


def _entry(row: dict[str, Any], name: str) -> Any:
    if name not in row:
        raise ValueError(f"{name} is missing")
    return row[name]


def _counts(row: dict[str, Any], *names: str, least: int = 0) -> None:
    for name in names:
        if check_integer(name, _entry(row, name), least) > _MOST:
            raise ValueError(f"{name} is too large")


def _numbers(row: dict[str, Any], *names: str) -> None:
    """Numbers that may be infinite or nan: a run that diverged is a run."""
    for name in names:
        value = _entry(row, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} is not a number")
        float(value)  # OverflowError: an integer beyond every float


_MOST = 2**53  # beyond it, not every integer is a float

# Files of a run folder: the field of RunRecord that each fills, how it is parsed, and what stands for a missing one.
_FILES: dict[str, tuple[str, Callable[[str], Any], Any]] = {
    "options.json": ("options", _options, {}),
    "environment.json": ("environment", _environment, {}),
    "metrics.jsonl": ("history", _history, []),
    "summary.json": ("summary", _summary, {}),
    "sample.txt": ("sample", str, ""),
    "changes.json": ("changes", _changes, []),
    "warnings.json": ("warnings", _warnings, []),
}
