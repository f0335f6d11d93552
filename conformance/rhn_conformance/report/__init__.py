"""Reports from results: CONFORMANCE.md, an HTML page, and a badge per backend."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from rhn_conformance.report.badge import badge, draw_badge
from rhn_conformance.report.markdown import render_markdown
from rhn_conformance.report.page import render_page
from rhn_conformance.results import Result, Run


def write_report(runs: Sequence[Run], results: Sequence[Result], folder: Path) -> list[Path]:
    """Write CONFORMANCE.md, conformance.html and badges/<backend>.json and .svg into `folder`; returns their paths.

    If several runs have the same check of the same backend, the last one counts.

    Raises:
        ValueError: there are no results.
    """
    if not results:
        raise ValueError("there are no results to report")
    results = latest(results)
    results += [result.from_the_other_side() for result in results if result.is_pair]  # it counts for both
    shown = {result.run for result in results}
    runs = [run for run in runs if run.run in shown]
    files = {
        folder / "CONFORMANCE.md": render_markdown(runs, results),
        folder / "conformance.html": render_page(runs, results),
    }
    for backend in dict.fromkeys(result.backend for result in results):
        name = quote(backend, safe="")  # no name of a backend can put its badge outside the folder
        data = badge(backend, results)
        files[folder / "badges" / f"{name}.json"] = json.dumps(data, indent=1) + "\n"
        files[folder / "badges" / f"{name}.svg"] = draw_badge(data)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)


def latest(results: Iterable[Result]) -> list[Result]:
    """The last of several results of the same check."""
    by_key = {(r.case, r.check, r.backend, r.device, r.dtype, r.against): r for r in results}
    return list(by_key.values())
