"""Expected failures are excused, and only they."""

from __future__ import annotations

from pathlib import Path

import pytest

from rhn_conformance.expected_failures import ExpectedFailure, judge, load_expected_failures, unmatched
from rhn_conformance.results import Result, Verdict
from rhn_conformance.suite import all_cases


def result(verdict: Verdict) -> Result:
    return Result(
        "run", "tied", "forward", ("2.9",), "mine", "cpu", "float32", "reference", verdict, message="is wrong"
    )


def test_a_listed_failure_is_excused_with_its_reason() -> None:
    judged = judge(result(Verdict.FAILED), [ExpectedFailure(reason="no tying", case="ti*")])
    assert judged.verdict is Verdict.EXPECTED_FAILURE
    assert judged.verdict.is_good
    assert judged.message == "no tying [is wrong]"


def test_a_listed_failure_that_passes_is_an_error() -> None:
    judged = judge(result(Verdict.PASSED), [ExpectedFailure(reason="no tying", case="tied")])
    assert judged.verdict is Verdict.UNEXPECTED_PASS
    assert not judged.verdict.is_good


@pytest.mark.parametrize(
    "other", [{"case": "plain"}, {"check": "gradients"}, {"dtype": "float64"}, {"device": "gpu"}, {"against": "tf"}]
)
def test_what_is_not_listed_stays(other: dict[str, str]) -> None:
    entry = ExpectedFailure(**{"reason": "another", "case": "tied", **other})
    assert judge(result(Verdict.FAILED), [entry]) == result(Verdict.FAILED)


def test_entries_that_match_nothing_are_found() -> None:
    good = ExpectedFailure(reason="r", case="tied", check="forward")
    stale = [ExpectedFailure(reason="r", case="gone"), ExpectedFailure(reason="r", case="tied", check="forwards")]
    assert unmatched([good, *stale], all_cases()) == stale


def test_lists_are_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "list.toml"
    path.write_text('[[expected_failure]]\ncase = "adam*"\nreason = "SGD only"\n')
    assert load_expected_failures("mine", path) == [ExpectedFailure(reason="SGD only", case="adam*")]
    for broken in ('case = "adam*"', 'reason = "r"', 'case = "a"\nreason = "r"\nclause = "1.1"'):
        path.write_text(f"[[expected_failure]]\n{broken}\n")
        with pytest.raises(ValueError, match="expected failure 1 of mine is not accepted"):
            load_expected_failures("mine", path)
    with pytest.raises(ValueError, match="does not exist"):
        load_expected_failures("mine", tmp_path / "nothing.toml")


def test_a_backend_without_a_list_is_excused_nothing() -> None:
    assert load_expected_failures("mine") == []
