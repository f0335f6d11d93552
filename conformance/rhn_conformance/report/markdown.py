"""CONFORMANCE.md: verdicts, the worst error per clause, and the reason for each result that is not a pass."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from rhn.markdown import escaped, table
from rhn_conformance.results import Result, Run, Verdict

Column = tuple[str, str, str]  # backend, device, dtype


def render_markdown(runs: Sequence[Run], results: Sequence[Result]) -> str:
    """The report in Markdown."""
    columns = _columns(results)
    sections = [
        "# Conformance\n\nWritten by `rhn-conformance report`; conformance.html has the same, and every tensor.\n"
        "Errors are relative to the largest entry of a tensor, ULPs are units in the last place at that entry.",
        _machines(runs),
        "## Backends\n\n" + table(["backend", "device", "dtype", *_SUMMARY], [_summary(c, results) for c in columns]),
        "## Worst error per clause of SPEC.md, in ULPs\n\n" + _by_clause(columns, results),
        _slowest(results),
        _remarks("## Failures", results, (Verdict.FAILED, Verdict.UNEXPECTED_PASS)),
        _remarks("## Expected failures", results, (Verdict.EXPECTED_FAILURE,)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


_SUMMARY = ("passed", "failed", "expected failures", "worst ULP", "worst relative error", "where")


def _columns(results: Iterable[Result]) -> list[Column]:
    return list(dict.fromkeys((r.backend, r.device, r.dtype) for r in results))


def _of(column: Column, results: Iterable[Result]) -> list[Result]:
    return [r for r in results if (r.backend, r.device, r.dtype) == column]


def _summary(column: Column, results: Iterable[Result]) -> list[str]:
    own = _of(column, results)
    counts = Counter(result.verdict for result in own)
    errors = [(error, result) for result in own for error in result.errors]
    worst, where = max(errors, key=lambda pair: pair[0].max_rel, default=(None, None))
    return [
        *column,
        str(counts[Verdict.PASSED]),
        str(counts[Verdict.FAILED] + counts[Verdict.UNEXPECTED_PASS]),
        str(counts[Verdict.EXPECTED_FAILURE]),
        _ulps(max((error.ulps for error, _ in errors), default=math.inf)),
        f"{worst.max_rel:.1e}" if worst else "-",
        f"{where.case}, {where.check} against {where.against}" if where else "-",
    ]


def _machines(runs: Sequence[Run]) -> str:
    lines = []
    for run in runs:
        machine = run.machine
        lines.append(
            "* "
            + escaped(
                f"{run.date}: {machine['processor']}, {machine['cores']} cores, {machine['system']},"
                f" Python {machine['python']}, NumPy {machine['numpy']}"
            )
        )
        for backend, versions in run.versions.items():
            described = ", ".join(f"{name} {version}" for name, version in versions.items())
            lines.append("  * " + escaped(f"{backend}: {described}"))
            if backend in run.not_asked:
                lines.append("    * " + escaped(f"not asked about {run.not_asked[backend]}"))
    return "\n".join(lines)


def _by_clause(columns: Sequence[Column], results: Sequence[Result]) -> str:
    clauses = sorted({c for r in results for c in r.clauses}, key=lambda c: [int(part) for part in c.split(".")])
    rows = []
    for clause in clauses:
        row = [clause]
        for column in columns:
            own = [r for r in _of(column, results) if clause in r.clauses and r.against == "reference"]
            row.append(_ulps(max((r.ulps for r in own), default=0.0)) if own else "-")
        rows.append(row)
    return table(["clause", *(f"{backend} {dtype}" for backend, _, dtype in columns)], rows)


def _slowest(results: Iterable[Result]) -> str:
    """The ten slowest cases."""
    seconds: Counter[tuple[str, str]] = Counter()
    for result in results:
        seconds[result.case, result.backend] += result.seconds  # type: ignore[assignment]
    rows = [[case, backend, f"{total:.1f}"] for (case, backend), total in seconds.most_common(10) if total]
    title = "## Slowest cases, in seconds, compiling included\n\n"
    return title + table(["case", "backend", "seconds"], rows) if rows else ""


def _remarks(title: str, results: Iterable[Result], verdicts: Sequence[Verdict]) -> str:
    lines = [f"* {escaped(str(result))}" for result in results if result.verdict in verdicts]
    return "\n".join([f"{title}\n", *lines]) if lines else ""


def _ulps(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "not finite"
