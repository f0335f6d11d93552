"""A badge per backend: as data for shields.io, and as SVG."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rhn_conformance.report.templates import TEMPLATES
from rhn_conformance.results import Result, Verdict

_COLOURS = {"brightgreen": "#3b8c3b", "yellowgreen": "#7a7d12", "red": "#c0392b"}  # dark enough for white text
_WIDTH_OF_A_LETTER = 6.6  # of Verdana at 11 pixels; the drawing stretches the text to fit


def badge(backend: str, results: Iterable[Result]) -> dict[str, object]:
    """The data of an endpoint badge of shields.io. An expected failure does not count as a pass, and is named."""
    counts = Counter(result.verdict for result in results if result.backend == backend)
    bad = counts[Verdict.FAILED] + counts[Verdict.UNEXPECTED_PASS]
    excused = counts[Verdict.EXPECTED_FAILURE]
    message = f"{counts[Verdict.PASSED]} of {counts.total()} checks"
    if excused:
        message += f", {excused} known failures"
    color = "red" if bad or not counts[Verdict.PASSED] else "yellowgreen" if excused else "brightgreen"
    return {"schemaVersion": 1, "label": f"conformance: {backend}", "message": message, "color": color}


def draw_badge(data: dict[str, object]) -> str:
    """The badge as SVG."""
    label, message = str(data["label"]), str(data["message"])
    left, right = (round(12 + _WIDTH_OF_A_LETTER * len(text)) for text in (label, message))
    return TEMPLATES.get_template("badge.svg.j2").render(
        label=label, message=message, left=left, right=right, colour=_COLOURS[str(data["color"])]
    )
