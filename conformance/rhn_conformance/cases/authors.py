"""Cases from the authors' own programs: one training window each, and a second step on it."""

from __future__ import annotations

from functools import partial

import numpy as np

from rhn_conformance.case import Answers, Case, Inputs, Step, Tensors, Window
from rhn_conformance.cases import authors_data
from rhn_conformance.cases.authors_data import AuthorsCase
from rhn_conformance.checks import CHECKS

_CLAUSES = ("1.2", "2.4", "4.3", "5.1", "5.2")
_CHECKS = tuple(check for check in CHECKS if check.name in ("forward", "loss", "evaluation", "gradients", "training"))


def authors_cases() -> list[Case]:
    """One case per program, configuration and precision."""
    cases: list[Case] = []
    for name in authors_data.CASES:
        program = authors_data.load_case(name)
        cases.append(
            Case(
                name=f"authors-{name}",
                clauses=_CLAUSES,
                checks=_CHECKS,
                inputs=partial(_inputs, program),
                expected=partial(_answers, program),
                against="authors",
                dtypes=(program.dtype,),
                complete=False,
            )
        )
    return cases


def _inputs(program: AuthorsCase) -> Inputs:
    window = Window(program.tokens, program.targets, program.masks)
    return Inputs(
        config=program.config,
        parameters=program.parameters,
        state=program.state,
        double_window=window,
        steps=tuple(
            Step(window, program.learning_rate, program.weight_decay, max_grad_norm)
            for max_grad_norm in program.equivalent_max_grad_norms()
        ),
    )


def _answers(program: AuthorsCase) -> Answers:
    state = {f"state.{layer}": s for layer, s in enumerate(program.final_state)}
    first_step: Tensors = {
        "loss": np.array(program.loss),
        "grad_norm": np.array(program.grad_norm),
        **state,
        **program.new_parameters,
    }
    second = program.second_step
    second_step: Tensors = {
        **{f"state.{layer}": s for layer, s in enumerate(second.final_state)},
        **second.new_parameters,
    }
    return {
        "forward": {"logits": program.logits, **state},
        "loss": {"loss": np.array(program.loss), **state},
        "evaluation": {"nll": program.losses.sum(dtype=np.float64), **state},
        "gradients": program.gradients,
        "training": {
            **{f"step 1: {name}": tensor for name, tensor in first_step.items()},
            **{f"step 2: {name}": tensor for name, tensor in second_step.items()},
        },
    }
