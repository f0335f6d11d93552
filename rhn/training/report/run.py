"""The page of one run: final scores, curves, results, sample, configuration, versions and machine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rhn.files import write_atomically
from rhn.training.options import DEFAULTS
from rhn.training.report.charts import Chart, Line, line_chart, line_key
from rhn.training.report.render import render
from rhn.training.run.record import RunRecord, read_run

_PARTS = {"train (with dropout)": "train_nats", "valid": "valid_nats", "test": "test_nats"}

# Metrics of an epoch that have a chart of their own.
_SINGLE = {
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm before clipping, mean",
    "tokens_per_second": "training speed, tokens per second",
}

Table = tuple[list[str], list[list[Any]]]  # header and rows


def write_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a run, from the files that are there, and return its path.

    Raises:
        RunRecordError: none of the files of a run is there, or one is damaged.
        OSError: the page cannot be written.
    """
    report = folder / "report.html"
    write_atomically(report, run_page(read_run(folder)))
    return report


def run_page(run: RunRecord) -> bytes:
    """The page as UTF-8. If the run was interrupted or has not finished yet, the page says so."""
    return render(
        "run.html.j2",
        run=run,
        subtitle=_subtitle(run),
        warnings=[*_unfinished(run), *run.warnings],
        figures=_final_figures(run),
        key=line_key([*_PARTS]),
        charts=_charts(run),
        epochs=_epoch_table(run),
        changes=_change_table(run),
        configuration=_configuration(run),
    )


def _subtitle(run: RunRecord) -> str:
    o = run.options
    model = "unknown model"
    if "recurrence_depth" in o and "hidden_size" in o:
        model = f"depth {o['recurrence_depth']}, {o['hidden_size']} units"
    return f"{run.environment.get('backend', 'unknown backend')}, {o.get('dataset', 'unknown data')}, {model}"


def _unfinished(run: RunRecord) -> list[str]:
    if run.finished:
        return []
    done = f"{run.epochs[-1]:.4g}" if run.history else "0"
    epochs = f"{done} of {run.options['epochs']}" if "epochs" in run.options else done
    state = f"This run has not finished; epochs done: {epochs}."
    if run.history:
        state += " Its scores are not final: they were computed in batches, after the best epoch so far."
    return [state]


def _final_figures(run: RunRecord) -> list[tuple[str, str, str]]:
    """Name, number and remark of the figures at the top of the page."""
    found = []
    for part in ("test", "valid"):
        score = run.score(part)
        if score is not None:
            found.append((f"{part}, {run.unit}", f"{score:#.4g}", _how_scored(run, part)))
    if run.paper is not None:
        valid, parameters = run.paper.printed("valid"), f"{run.paper.parameters:,} parameters"
        found.append(("test in the paper", run.paper.printed("test"), f"valid {valid}; {parameters}"))
    if run.finished:
        found.append(("parameters", f"{run.summary['parameters']:,}", ""))
        if run.summary["order_two_baseline"] is not None:
            found.append(("counting with order 2", f"{run.summary['order_two_baseline']:#.4g}", "test, for comparison"))
    if run.best_row is not None:
        best = run.epochs[run.history.index(run.best_row)]
        found.append(("best epoch", f"{best:.4g}", f"of {run.epochs[-1]:.4g}"))
        trained = _duration(sum(row["seconds"] for row in run.history))
        waiting = "" if run.waiting_fraction is None else f", {run.waiting_fraction:.2%} waiting for data"
        found.append(("tokens per second", f"{run.tokens_per_second:,.0f}", f"{trained} of training{waiting}"))
    return found


def _how_scored(run: RunRecord, part: str) -> str:
    if not run.finished:
        return "in batches, best epoch"
    score = run.summary[part]
    how = f"{score['tokens']:,} tokens at batch 1"
    if not math.isfinite(score["standard_error"]):  # of a stream of a single window
        return how
    error = score["standard_error"]  # in nats; perplexity is their exponential, bits are a multiple of them
    error = error * run.in_units(score["nats"]) if run.level == "word" else run.in_units(error)
    return f"± {error:.2g} standard error; {how}"


def _duration(seconds: float) -> str:
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _charts(run: RunRecord) -> list[Chart]:
    """All scores in one chart, and each other metric in its own chart; none before the first epoch has ended."""
    if not run.history:
        return []
    epochs = run.epochs
    scores = [
        Line(label, epochs, tuple(run.in_units(row[name]) for row in run.history), style)
        for style, (label, name) in enumerate(_PARTS.items())
    ]
    others = [
        line_chart(title, [Line(title, epochs, tuple(row[name] for row in run.history), 0)])
        for name, title in _SINGLE.items()
    ]
    return [line_chart(run.unit, scores), *others]


def _epoch_table(run: RunRecord) -> Table:
    """The numbers behind the curves."""
    header = ["epoch", *_PARTS, "learning rate", "gradient norm", "tokens/s", "minutes"]
    rows = [
        [
            f"{epochs_done:.4g}",
            *(f"{run.in_units(row[name]):.4g}" for name in _PARTS.values()),
            f"{row['learning_rate']:.3g}",
            f"{row['gradient_norm']:.3g}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['seconds'] / 60:.1f}",
        ]
        for row, epochs_done in zip(run.history, run.epochs, strict=True)
    ]
    return header, rows


def _change_table(run: RunRecord) -> Table | None:
    """The options that were changed when the run was resumed."""
    names = ["option", "step", "before", "after"]
    return (names, [[change[name] for name in names] for change in run.changes]) if run.changes else None


def _configuration(run: RunRecord) -> dict[str, dict[str, Any]]:
    """The options that differ from the defaults, and the others."""
    special = {name: value for name, value in run.options.items() if name not in DEFAULTS or value != DEFAULTS[name]}
    return {"special": special, "default": {name: value for name, value in run.options.items() if name not in special}}
