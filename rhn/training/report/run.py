"""The page of one run: final figures, curves, sample, configuration, and on what it was made."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import Any

from rhn.files import write_atomically
from rhn.training.report import page
from rhn.training.report.charts import Line
from rhn.training.run.record import RunRecord, read_run

_PARTS = {"train (with dropout)": "train_nats", "valid": "valid_nats", "test": "test_nats"}

# Metrics of an epoch that have a chart of their own.
_SINGLE = {
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm before clipping, mean",
    "tokens_per_second": "training speed, tokens per second",
}


def run_page(run: RunRecord) -> bytes:
    """The page as UTF-8; for a run that was interrupted, or has not finished yet, it says so."""
    sections = [
        _header(run),
        page.figures(_final_figures(run)),
        page.section("Curves", *_curves(run)),
        *(page.section(f"Result {name}", page.values(shown)) for name, shown in run.results.items()),
        page.section("Sample", f"<pre>{escape(run.sample)}</pre>" if run.sample else _lack("sample.txt")),
        page.section("Configuration", _values(run.options, "options.json")),
        page.section("Made with", _values(run.environment, "environment.json")),
    ]
    return page.page(f"{run.name} - run report", "\n".join(sections))


def _header(run: RunRecord) -> str:
    o = run.options
    model = "depth {recurrence_depth}, {hidden_size} units".format_map(o) if o else "unknown model"
    subtitle = ", ".join([run.environment.get("backend", "unknown backend"), o.get("dataset", "unknown data"), model])
    lines = [f"<h1>{escape(run.name)}</h1>", f'<p class="quiet">{escape(subtitle)}</p>']
    if not run.finished:
        epochs = f"{len(run.history)} of {o['epochs']}" if "epochs" in o else str(len(run.history))
        state = f"This run has not finished; epochs done: {epochs}."
        if run.history:
            state += " Its scores are batched, after the best epoch so far; they are not final."
        lines.append(f'<p class="warning">{escape(state)}</p>')
    return "\n".join(["<header>", *lines, "</header>"])


def _final_figures(run: RunRecord) -> list[tuple[str, str, str]]:
    """Name, number and remark of what is seen first."""
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
        found.append(("best epoch", str(run.best_row["epoch"]), f"of {len(run.history)}"))
        trained = _duration(sum(row["seconds"] for row in run.history))
        waiting = "" if run.waiting_fraction is None else f", {run.waiting_fraction:.2%} waiting for data"
        found.append(("tokens per second", f"{run.tokens_per_second:,.0f}", f"{trained} of training{waiting}"))
    return found


def _how_scored(run: RunRecord, part: str) -> str:
    if not run.finished:
        return "batched, best epoch"
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


def _curves(run: RunRecord) -> list[str]:
    if not run.history:
        return [_lack("metrics.jsonl")]
    epochs = [row["epoch"] for row in run.history]
    scores = [
        Line(label, epochs, [run.in_units(row[name]) for row in run.history], style)
        for style, (label, name) in enumerate(_PARTS.items())
    ]
    others = [
        page.chart(title, [Line(title, epochs, [row[name] for row in run.history], 0)])
        for name, title in _SINGLE.items()
    ]
    return [page.key([*_PARTS]), page.charts([page.chart(run.unit, scores), *others]), _epoch_table(run)]


def _epoch_table(run: RunRecord) -> str:
    """The numbers behind the curves."""
    header = ["epoch", *_PARTS, "learning rate", "gradient norm", "tokens/s", "minutes"]
    rows = [
        [
            str(row["epoch"]),
            *(f"{run.in_units(row[name]):.4g}" for name in _PARTS.values()),
            f"{row['learning_rate']:.3g}",
            f"{row['gradient_norm']:.3g}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['seconds'] / 60:.1f}",
        ]
        for row in run.history
    ]
    return f"<details>\n<summary>All epochs as a table</summary>\n{page.table(header, rows)}\n</details>"


def _values(items: dict[str, Any], file: str) -> str:
    return page.values(items) if items else _lack(file)


def _lack(file: str) -> str:
    return f'<p class="quiet">Not recorded: {file} is missing or empty.</p>'


def write_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a run, from the files that are there, and return its path.

    Raises:
        RunRecordError: none of the files of a run is there, or one is damaged.
        OSError: the page cannot be written.
    """
    report = folder / "report.html"
    write_atomically(report, run_page(read_run(folder)))
    return report
