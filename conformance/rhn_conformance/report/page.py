"""The HTML page: a grid of cases and backends, with the tensors behind each cell, in one file that needs no server."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rhn_conformance.report.templates import TEMPLATES
from rhn_conformance.results import Result, Run


def render_page(runs: Sequence[Run], results: Sequence[Result]) -> str:
    """The page as text. Its script reads the data from a JSON block, in which no text can end or hide the script. It
    draws everything through the DOM, so that text is never taken as markup."""
    return TEMPLATES.get_template("page.html").render(data=_data(runs, results))


def _data(runs: Sequence[Run], results: Sequence[Result]) -> dict[str, Any]:
    """The data for the script of the page; see the comments there."""
    backends = list(dict.fromkeys(r.backend for r in results))
    found = list(dict.fromkeys((r.backend, r.device, r.dtype) for r in results))
    columns = sorted(found, key=lambda column: backends.index(column[0]))  # results come as they are ready
    rows = list(dict.fromkeys(r.case for r in results))
    cells: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        key = f"{rows.index(result.case)},{columns.index((result.backend, result.device, result.dtype))}"
        cells.setdefault(key, []).append(_check(result))
    return {
        "runs": [asdict(run) for run in runs],
        "columns": [{"backend": b, "device": device, "dtype": dtype} for b, device, dtype in columns],
        "rows": rows,
        "cells": cells,
    }


def _check(result: Result) -> dict[str, Any]:
    worst = max(result.errors, key=lambda e: e.max_rel, default=None)
    return {
        "check": result.check,
        "against": result.against,
        "clauses": result.clauses,
        "verdict": result.verdict,
        "message": result.message,
        "tolerance": _short(worst.tolerance) if worst else None,
        "errors": [[e.tensor, _short(e.max_abs), _short(e.max_rel), _short(e.ulps)] for e in result.errors],
        "worst": str(worst) if worst and worst.max_abs and not result.is_pair else "",
    }


def _short(number: float) -> float | None:
    """The value to three digits, as the page shows it; None if it is not finite."""
    return float(f"{number:.2e}") if math.isfinite(number) else None
