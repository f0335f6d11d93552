"""The suite as pytest tests, one per case and target: `pytest --pyargs rhn_conformance --rhn-backend NAME`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from rhn.backend import load_backend
from rhn_conformance.case import DTYPES, Case
from rhn_conformance.expected_failures import ExpectedFailure, judge, load_expected_failures, unmatched
from rhn_conformance.results import Verdict
from rhn_conformance.runner import Target, examine
from rhn_conformance.suite import all_cases


@cache
def _target(backend: str, dtype: str, device: str | None) -> Target:
    """One target per session, so that its compiled programs are used again."""
    return Target(load_backend(backend), dtype, device)


@cache
def _excuses(backend: str, path: str | None) -> list[ExpectedFailure]:
    return load_expected_failures(backend, Path(path) if path else None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per backend, case and dtype."""
    option = metafunc.config.getoption
    backends = option("--rhn-backend")
    if not backends:
        raise pytest.UsageError("rhn_conformance: name at least one backend with --rhn-backend")
    for backend in backends:
        for entry in unmatched(_excuses(backend, option("--rhn-expected-failures")), all_cases()):
            raise pytest.UsageError(
                f"the expected failure {entry.case}/{entry.check} of {backend} matches nothing: remove it"
            )
    parameters = [
        pytest.param(backend, case, dtype, id=f"{backend}-{case.name}-{dtype}")
        for backend in backends
        for case in all_cases()
        if case.is_asked_of(load_backend(backend))
        for dtype in option("--rhn-dtype") or DTYPES
        if dtype in case.dtypes
    ]
    metafunc.parametrize(("backend", "case", "dtype"), parameters)


def test_conformance(backend: str, case: Case, dtype: str, request: pytest.FixtureRequest) -> None:
    """Every check of the case passes, or fails as its list of expected failures says."""
    option = request.config.getoption
    excuses = _excuses(backend, option("--rhn-expected-failures"))
    results = [
        judge(result, excuses) for result in examine(case, _target(backend, dtype, option("--rhn-device"))).results
    ]
    bad = [str(result) for result in results if not result.verdict.is_good]
    if bad:
        pytest.fail("\n".join(bad), pytrace=False)
    expected_failures = [result.message for result in results if result.verdict is Verdict.EXPECTED_FAILURE]
    if expected_failures:
        pytest.xfail("; ".join(expected_failures))
