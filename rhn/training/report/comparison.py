"""Compares runs of any backend with one another and with the paper: as a Markdown table, and as a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rhn.markdown import table
from rhn.training.report.charts import Line, line_chart, line_key
from rhn.training.report.render import render
from rhn.training.run.record import RunRecord

_ABSENT = "-"
_BATCHED = "†"


def _score(part: str) -> Callable[[RunRecord], str]:
    def cell(run: RunRecord) -> str:
        score = run.score(part)
        return _ABSENT if score is None else f"{score:#.4g}{'' if run.finished else _BATCHED}"

    return cell


def _paper(part: str) -> Callable[[RunRecord], str]:
    return lambda run: run.paper.printed(part) if run.paper else _ABSENT


def _option(name: str) -> Callable[[RunRecord], str]:
    return lambda run: str(run.options.get(name, _ABSENT))


def _environment(name: str) -> Callable[[RunRecord], str]:
    return lambda run: str(run.environment.get(name, _ABSENT))


_COLUMNS: dict[str, Callable[[RunRecord], str]] = {
    "run": lambda run: run.name,
    "backend": _environment("backend"),
    "data": _option("dataset"),
    "test": _score("test"),
    "test, paper": _paper("test"),
    "valid": _score("valid"),
    "valid, paper": _paper("valid"),
    "unit": lambda run: run.unit,
    "parameters": lambda run: f"{run.summary['parameters']:,}" if run.finished else _ABSENT,
    "parameters, paper": lambda run: f"{run.paper.parameters:,}" if run.paper else _ABSENT,
    "depth": _option("recurrence_depth"),
    "units": _option("hidden_size"),
    "tied": _option("tie_weights"),
    "epochs": lambda run: f"{run.epochs[-1]:.4g}" if run.history else "0",
    "tokens/s": lambda run: f"{run.tokens_per_second:,.0f}" if run.tokens_per_second else _ABSENT,
    "device": _environment("device"),
}

# Charts of each group of runs: title, and the metric's value in a row of a run's history.
_CHARTS: dict[str, Callable[[RunRecord, dict], float]] = {
    "valid, {unit}": lambda run, row: run.in_units(row["valid_nats"]),
    "train (with dropout), {unit}": lambda run, row: run.in_units(row["train_nats"]),
    "gradient norm before clipping, mean": lambda run, row: row["gradient_norm"],
    "training speed, tokens per second": lambda run, row: row["tokens_per_second"],
}


def comparison_table(runs: Sequence[RunRecord]) -> str:
    """A Markdown table, one run per line, and notes that explain its signs."""
    return "\n\n".join([table([*_COLUMNS], _rows(runs)), *_notes(runs)]) + "\n"


def comparison_page(runs: Sequence[RunRecord]) -> bytes:
    """A page (UTF-8) with the table, and with the curves of runs on the same data in common charts."""
    groups: dict[tuple[str, str], list[RunRecord]] = {}
    for run in runs:
        if run.history:
            groups.setdefault((run.options.get("dataset", "unknown data"), run.unit), []).append(run)
    return render(
        "comparison.html.j2",
        number=len(runs),
        header=[*_COLUMNS],
        rows=_rows(runs),
        notes=_notes(runs),
        groups=[_curves(dataset, unit, members) for (dataset, unit), members in groups.items()],
    )


def _rows(runs: Sequence[RunRecord]) -> list[list[str]]:
    return [[cell(run) for cell in _COLUMNS.values()] for run in runs]


def _notes(runs: Sequence[RunRecord]) -> list[str]:
    notes = ["Scores are those of the best epoch, measured over the whole stream at batch 1."]
    if not all(run.finished for run in runs):
        notes.append(f"{_BATCHED} The run has not finished: scored in batches, after the best epoch so far.")
    if any(run.paper for run in runs):
        notes.append("Paper: the published model with the same architecture and data; its training may differ.")
    return notes


def _curves(dataset: str, unit: str, runs: Sequence[RunRecord]) -> dict[str, Any]:
    drawn = []
    for title, value in _CHARTS.items():
        lines = [
            Line(run.name, run.epochs, tuple(value(run, row) for row in run.history), style)
            for style, run in enumerate(runs)
        ]
        drawn.append(line_chart(f"{dataset}: {title.format(unit=unit)}", lines))
    return {"dataset": dataset, "key": line_key([run.name for run in runs]), "charts": drawn}
