"""The suite: all cases, and the selection of some of them."""

from __future__ import annotations

from collections.abc import Sequence

from rhn_conformance.case import Case
from rhn_conformance.cases.authors import authors_cases
from rhn_conformance.cases.layers import layer_cases
from rhn_conformance.cases.processes import processes_case
from rhn_conformance.cases.synthetic import synthetic_cases
from rhn_conformance.cases.trajectory import trajectory_case


def all_cases() -> list[Case]:
    """Cases from simple to composite, layers on their own, the authors' programs, the trajectory, two processes."""
    return [*synthetic_cases(), *layer_cases(), *authors_cases(), trajectory_case(), processes_case()]


def select(cases: Sequence[Case], text: str | None, quick: bool = False) -> list[Case]:
    """The cases that `text` selects, all if it is None; if `quick`, only those of the covering array among them.

    Raises:
        ValueError: `text` selects none of them.
    """
    chosen = [case for case in cases if (text is None or case.selected_by(text)) and (case.covering or not quick)]
    if not chosen:
        among = " of the quick cases" if quick else ""
        raise ValueError(
            f"-k {text!r} selects nothing{among}: expected part of a case's name, or the number of a clause"
        )
    return chosen
