"""The suite: all cases, and the selection of some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rhn_conformance.case import DTYPES, Case
from rhn_conformance.cases.authors import authors_cases
from rhn_conformance.cases.layers import layer_cases
from rhn_conformance.cases.processes import processes_case
from rhn_conformance.cases.synthetic import synthetic_cases
from rhn_conformance.cases.trajectory import trajectory_case

# The cases of a quick run, each with its dtypes. They notice every mistake of `rewritten/mutants.py`, and name every
# clause that no such mistake breaks. Few programs are compiled for them. Several processes (9.1) are in the whole
# run only, because each process compiles for itself.
QUICK: dict[str, tuple[str, ...]] = {
    "shortest": DTYPES,
    "initial-state": ("float64",),
    "large-logits": ("float32",),
    "small-weights": ("float32",),
    "momentum": ("float64",),
    "adam": ("float64",),
    "mask-update": ("float64",),
    "length-and-activation-regularization": ("float64",),
    "beyond-the-paper-recompute": ("float64",),
    "layer-everything": ("float64",),
}


def all_cases() -> list[Case]:
    """Cases from simple to composite, layers on their own, the authors' programs, the trajectory, two processes."""
    return [*synthetic_cases(), *layer_cases(), *authors_cases(), trajectory_case(), processes_case()]


def is_quick(case: Case, dtype: str) -> bool:
    """Whether a quick run has this case in this dtype."""
    return dtype in QUICK.get(case.name, ())


def select(cases: Sequence[Case], text: str | None, quick: bool = False) -> list[Case]:
    """The cases that `text` selects, or all if it is None; with `quick`, only the cases in `QUICK` among them.

    Raises:
        ValueError: `text` selects none of them.
    """
    chosen = [case for case in cases if text is None or case.selected_by(text)]
    if quick:
        chosen = [replace(case, dtypes=QUICK[case.name]) for case in chosen if case.name in QUICK]
    if not chosen:
        among = " of the quick cases" if quick else ""
        raise ValueError(
            f"-k {text!r} selects nothing{among}: expected part of a case's name, or the number of a clause"
        )
    return chosen
