"""The suite has teeth: each mistake is noticed, and the first check that notices it names the clause."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rhn.backend import Backend
from rhn_conformance.case import Case
from rhn_conformance.cases.layers import layer_cases
from rhn_conformance.cases.processes import processes_case
from rhn_conformance.cases.synthetic import synthetic_cases
from rhn_conformance.results import Result, Verdict
from rhn_conformance.rewritten.mutants import MUTANTS, Mutant
from rhn_conformance.rewritten.rewrite import rewritten_reference
from rhn_conformance.runner import Target, examine
from rhn_conformance.suite import all_cases, select

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")

OF_ONE_PROCESS = [mutant for mutant in MUTANTS if mutant.clause != "9.1"]


def first_failure(backend: Backend, cases: Sequence[Case]) -> Result | None:
    targets = {dtype: Target(backend, dtype) for dtype in ("float64", "float32")}
    for case in cases:
        for result in examine(case, targets[case.dtypes[0]]).results:
            if result.verdict is Verdict.FAILED:
                return result
    return None


def test_the_reference_itself_has_no_failure() -> None:
    cases = [*synthetic_cases(), *layer_cases(), processes_case()]
    assert first_failure(rewritten_reference("unchanged", []), cases) is None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_mutant_fails_first_where_its_clause_is_named(mutant: Mutant) -> None:
    # Models do not use the code of the layers on their own, nor that of several processes.
    others = {"7": layer_cases(), "9": [processes_case()]}
    cases = others.get(mutant.clause[0], synthetic_cases())
    failure = first_failure(mutant.backend(), cases)
    assert failure is not None, "nothing has noticed"
    assert mutant.clause in failure.clauses, str(failure)


def quick_cases() -> list[Case]:
    """The heaviest first: it notices most."""
    return select(all_cases(), None, quick=True)[::-1]


@pytest.mark.parametrize("mutant", OF_ONE_PROCESS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_the_quick_cases_notice_it_too(mutant: Mutant) -> None:
    assert first_failure(mutant.backend(), quick_cases()) is not None


def test_a_mutation_that_does_not_apply_is_an_error() -> None:
    with pytest.raises(ValueError, match="occurs 0 times in the reference"):
        rewritten_reference("no mutant", [("a line that is not there", "")])
