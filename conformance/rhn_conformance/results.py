"""The results of a run, as JSON lines: one record per check, and one record per run with versions and machine."""

from __future__ import annotations

import datetime
import json
import math
import os
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from rhn.compare import TensorError
from rhn.machine import describe_machine


class Verdict(StrEnum):
    """Outcome of one check."""

    PASSED = "passed"
    FAILED = "failed"
    EXPECTED_FAILURE = "expected failure"  # it failed, and the backend's list of expected failures says why
    UNEXPECTED_PASS = "unexpected pass"  # it is on that list, and passed: the list is wrong

    @property
    def is_good(self) -> bool:
        """Whether the run may succeed with this verdict."""
        return self in (Verdict.PASSED, Verdict.EXPECTED_FAILURE)


@dataclass(frozen=True)
class Result:
    """One check of one case on one backend.

    Attributes:
        run: identifier of the run; the `Run` record with the same one has versions and machine.
        case: name of the case.
        check: name of the check.
        clauses: clauses of SPEC.md that the case and the check test.
        backend: name of the backend.
        device: the requested device; "default" if none was requested.
        dtype: dtype of its arithmetic.
        against: "reference", "authors", or the other backend of a pair.
        verdict: outcome.
        errors: the error of every tensor that was compared.
        message: why it failed, or why the failure is expected; else empty.
        seconds: time that the backend took to answer, building and compiling included; 0 for a pair.
    """

    run: str
    case: str
    check: str
    clauses: tuple[str, ...]
    backend: str
    device: str
    dtype: str
    against: str
    verdict: Verdict
    errors: tuple[TensorError, ...] = ()
    message: str = ""
    seconds: float = 0.0

    def from_the_other_side(self) -> Result:
        """The same result of a pair of backends, seen from the other backend."""
        return replace(self, backend=self.against, against=self.backend, seconds=0.0)

    @property
    def is_pair(self) -> bool:
        """Whether two backends were compared with each other."""
        return self.against not in ("reference", "authors")

    @property
    def ulps(self) -> float:
        """Largest error of a tensor in ULPs; infinite if nothing could be compared."""
        return max((e.ulps for e in self.errors), default=math.inf)

    def __str__(self) -> str:
        where = f"{self.backend} {self.dtype} {self.case}/{self.check} against {self.against}"
        return f"{self.verdict}: {where} (SPEC.md {', '.join(self.clauses)}): {self.message or 'ok'}"


@dataclass(frozen=True)
class Run:
    """Where and with what a run was made."""

    run: str
    date: str
    machine: dict[str, str]
    versions: dict[str, dict[str, str]] = field(default_factory=dict)  # per backend, as it describes itself
    not_asked: dict[str, str] = field(default_factory=dict)  # per backend, the optional features that it lacks, and why
    options: dict[str, Any] = field(default_factory=dict)


def new_run(options: dict[str, Any]) -> Run:
    """The record of a run that starts now on this machine; versions are added when a backend is loaded."""
    now = datetime.datetime.now(datetime.UTC)
    return Run(
        run=now.strftime("%Y%m%dT%H%M%S") + f"-{os.getpid()}",
        date=now.isoformat(timespec="seconds"),
        machine={**describe_machine(), "numpy": np.__version__},
        options=options,
    )


class ResultWriter:
    """Writes records line by line as they come, so that a run that is cut off has stored its results.

    A line for the run, one for each backend when it is loaded, one per result. Numbers that are not finite are written
    as strings.
    """

    def __init__(self, file: TextIO, run: Run) -> None:
        self._file = file
        self._run = run
        self._write({"record": "run", **asdict(run)})

    def backend(self, name: str, versions: dict[str, str], not_asked: str = "") -> None:
        """A backend's description of itself, and the optional features that it lacks."""
        more = {"not_asked": not_asked} if not_asked else {}
        self._write({"record": "backend", "run": self._run.run, "name": name, "versions": versions, **more})

    def result(self, result: Result) -> None:
        self._write({"record": "result", **asdict(result)})

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(_finite(record), allow_nan=False) + "\n")
        self._file.flush()


def read_jsonl(path: Path) -> tuple[list[Run], list[Result]]:
    """The records that a `ResultWriter` wrote; several such files may be concatenated.

    A last line without an end was cut off while it was written, and is left out.

    Raises:
        ValueError: a line is not such a record.
    """
    runs: dict[str, Run] = {}
    results: list[Result] = []
    for number, line in enumerate(path.read_text().splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break
        try:
            record = json.loads(line)
            kind = record.pop("record")
            if kind == "run":
                run = Run(**record)
                runs[run.run] = run
            elif kind == "backend":
                run, name = runs[record["run"]], record["name"]
                run.versions[name] = record["versions"]
                if "not_asked" in record:
                    run.not_asked[name] = record["not_asked"]
            else:
                results.append(_result(record))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"line {number} of {path.name} is not a conformance record ({error})") from error
    return list(runs.values()), results


def _result(record: dict[str, Any]) -> Result:
    errors = tuple(
        TensorError(
            **{k: float(v) for k, v in e.items() if k not in ("tensor", "index")},
            tensor=e["tensor"],
            index=tuple(e["index"]),
        )
        for e in record.pop("errors")
    )
    clauses, verdict = tuple(record.pop("clauses")), Verdict(record.pop("verdict"))
    return Result(**record, clauses=clauses, verdict=verdict, errors=errors)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
