"""The suite: every exercise that a backend has to do, with the right answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from rhn.compare import LIMIT
from rhn.reference_backend import ReferenceBackend
from rhn_conformance.cases import CASES, DTYPES, Case
from rhn_conformance.checks import Answers, Check, checks_of
from rhn_conformance.inputs import Inputs, make_inputs
from rhn_conformance.tolerances import tolerance


@dataclass(frozen=True)
class Exercise:
    """Inputs, the questions asked about them, and the right answers.

    Attributes:
        name: unique in the suite.
        clauses: of SPEC.md, besides those of the checks.
        checks: the questions, in order.
        inputs: makes the inputs.
        expected: gives the right answers; may be slow the first time.
        against: whose answers they are: "reference" or "authors".
        dtypes: that a backend may do it in.
        complete: False if the right answers are known for some tensors only.
        calibrated: False if its errors were never measured; SPEC.md 6.1 is then the tolerance.
    """

    name: str
    clauses: tuple[str, ...]
    checks: tuple[Check, ...]
    inputs: Callable[[], Inputs]
    expected: Callable[[], Answers]
    against: str = "reference"
    dtypes: tuple[str, ...] = DTYPES
    complete: bool = True
    calibrated: bool = True

    def tolerance(self, dtype: str, check: Check) -> float:
        """Largest accepted error relative to the largest entry."""
        return tolerance(dtype, check.name, self.against) if self.calibrated else LIMIT[dtype]

    def selected_by(self, text: str) -> bool:
        """Whether `text` is part of the name, or one of the clauses."""
        clauses = {clause for check in self.checks for clause in check.clauses}
        return text in self.name or text in self.clauses or text in clauses


@cache
def reference_answers(case: Case) -> Answers:
    """What the reference answers in float64; both dtypes are compared with it."""
    inputs = make_inputs(case)
    model = ReferenceBackend().build(inputs.config, inputs.parameters, "float64", optimizer=inputs.optimizer)
    return {check.name: check.ask(model, inputs) for check in checks_of(inputs)}


def exercise(case: Case) -> Exercise:
    """A case as an exercise: every check, against the reference."""
    checks = tuple(checks_of(make_inputs(case)))
    return Exercise(
        name=case.name,
        clauses=case.clauses,
        checks=checks,
        inputs=partial(make_inputs, case),
        expected=partial(reference_answers, case),
        dtypes=case.dtypes,
    )


def all_exercises() -> list[Exercise]:
    """Cases from simple to composite, then the authors' programs, then the trajectory."""
    from rhn_conformance.authors_exercises import authors_exercises
    from rhn_conformance.trajectory import trajectory_exercise

    return [*map(exercise, CASES), *authors_exercises(), trajectory_exercise()]


def select(exercises: list[Exercise], text: str | None) -> list[Exercise]:
    """The exercises that `text` selects, all if it is None.

    Raises:
        ValueError: none is left.
    """
    chosen = [e for e in exercises if text is None or e.selected_by(text)]
    if not chosen:
        raise ValueError(f"-k {text!r} selects nothing: expected part of a case's name, or the number of a clause")
    return chosen
