"""Lists of expected failures of a backend. An expected failure that passes, or matches nothing, is an error."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

from rhn_conformance.case import Case
from rhn_conformance.results import Result, Verdict

_FIELDS = ("case", "check", "dtype", "device", "against")


@dataclass(frozen=True)
class ExpectedFailure:
    """Results that must fail, and the reason. All fields except the reason are shell patterns."""

    reason: str
    case: str
    check: str = "*"
    dtype: str = "*"
    device: str = "*"
    against: str = "*"

    def matches(self, result: Result) -> bool:
        return all(fnmatchcase(getattr(result, name), getattr(self, name)) for name in _FIELDS)


def load_expected_failures(backend: str, path: Path | None = None) -> list[ExpectedFailure]:
    """The entries of `path`, or of expected_failure_lists/<backend>.toml; none if there is no such file.

    Raises:
        ValueError: `path` does not exist, or an entry has no reason or an unknown key.
    """
    if path is not None:
        if not path.is_file():
            raise ValueError(f"the list of expected failures {path} does not exist")
        text = path.read_text()
    else:
        ours = resources.files("rhn_conformance") / "expected_failure_lists" / f"{backend}.toml"
        text = ours.read_text() if ours.is_file() else ""
    entries = []
    for number, entry in enumerate(tomllib.loads(text).get("expected_failure", []), start=1):
        unknown = set(entry) - {"reason", *_FIELDS}
        if unknown or not entry.get("case") or not entry.get("reason"):
            raise ValueError(
                f"expected failure {number} of {backend} is not accepted: it needs case and reason, and may have"
                f" {', '.join(_FIELDS[1:])}; it has {', '.join(sorted(entry))}"
            )
        entries.append(ExpectedFailure(**entry))
    return entries


def judge(result: Result, entries: Iterable[ExpectedFailure]) -> Result:
    """`result`, changed to an expected failure or an unexpected pass if an entry matches it."""
    entry = next((e for e in entries if e.matches(result)), None)
    if entry is None:
        return result
    if result.verdict is Verdict.PASSED:
        message = f"listed as an expected failure ({entry.reason}), but it passed"
        return replace(result, verdict=Verdict.UNEXPECTED_PASS, message=message)
    return replace(result, verdict=Verdict.EXPECTED_FAILURE, message=f"{entry.reason} [{result.message}]")


def unmatched(entries: Iterable[ExpectedFailure], cases: Iterable[Case]) -> list[ExpectedFailure]:
    """The entries that cannot match any result of these cases, and so must be removed."""
    possible = [
        (case.name, check.name, dtype, case.against) for case in cases for check in case.checks for dtype in case.dtypes
    ]
    return [
        entry
        for entry in entries
        if not any(
            all(map(fnmatchcase, names, (entry.case, entry.check, entry.dtype, entry.against))) for names in possible
        )
    ]
