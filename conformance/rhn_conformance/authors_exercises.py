"""The authors' own programs as exercises: one training window each, and a second step on it."""

from __future__ import annotations

from functools import partial

import numpy as np

from rhn_conformance import authors
from rhn_conformance.authors import AuthorsCase
from rhn_conformance.checks import CHECKS, Answers, Tensors
from rhn_conformance.inputs import Inputs, Step, Window
from rhn_conformance.suite import Exercise

_CLAUSES = ("1.2", "2.4", "4.3", "5.1", "5.2")
_CHECKS = tuple(check for check in CHECKS if check.name in ("forward", "loss", "evaluation", "gradients", "training"))


def authors_exercises() -> list[Exercise]:
    """One exercise per program, configuration and precision."""
    exercises = []
    for name in authors.CASES:
        case = authors.load_case(name)
        exercises.append(
            Exercise(
                name=f"authors-{name}",
                clauses=_CLAUSES,
                checks=_CHECKS,
                inputs=partial(_inputs, case),
                expected=partial(_answers, case),
                against="authors",
                dtypes=(case.dtype,),
                complete=False,
            )
        )
    return exercises


def _inputs(case: AuthorsCase) -> Inputs:
    window = Window(case.tokens, case.targets, case.masks)
    return Inputs(
        config=case.config,
        parameters=case.parameters,
        state=case.state,
        double_window=window,
        steps=tuple(
            Step(window, case.learning_rate, case.weight_decay, max_grad_norm)
            for max_grad_norm in case.equivalent_max_grad_norms()
        ),
    )


def _answers(case: AuthorsCase) -> Answers:
    state = {f"state.{layer}": s for layer, s in enumerate(case.final_state)}
    first_step: Tensors = {
        "loss": np.array(case.loss),
        "grad_norm": np.array(case.grad_norm),
        **state,
        **case.new_parameters,
    }
    second = case.second_step
    second_step: Tensors = {
        **{f"state.{layer}": s for layer, s in enumerate(second.final_state)},
        **second.new_parameters,
    }
    return {
        "forward": {"logits": case.logits, **state},
        "loss": {"loss": np.array(case.loss), **state},
        "evaluation": {"nll": case.losses.sum(dtype=np.float64), **state},
        "gradients": case.gradients,
        "training": {
            **{f"step 1: {name}": tensor for name, tensor in first_step.items()},
            **{f"step 2: {name}": tensor for name, tensor in second_step.items()},
        },
    }
