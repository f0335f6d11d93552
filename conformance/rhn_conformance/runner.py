"""Runs the cases against backends and judges the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from rhn.backend import Backend, Model
from rhn.compare import TensorError, compare
from rhn.spec.config import RHNConfig
from rhn.spec.optimizers import PAPER_SGD, Optimizer
from rhn_conformance.case import Answers, Case, Check, Inputs, Tensors
from rhn_conformance.results import Result, Verdict
from rhn_conformance.tolerances import tolerance

MODELS_KEPT = 6  # what a model has compiled takes tens of megabytes


@dataclass
class Target:
    """A backend as it is to be tested, and the models that it has built so far."""

    backend: Backend
    dtype: str
    device: str | None = None
    _models: dict[tuple[RHNConfig, Optimizer, bool], Model] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return self.backend.name

    def model(self, inputs: Inputs) -> Model:
        """A model with the parameters of `inputs`.

        One that was built for the same configuration takes them over, so that what it has compiled is used again; but
        not if its optimiser remembers something.
        """
        model = self._models.pop((inputs.config, inputs.optimizer, inputs.recompute), None)
        if model is not None:
            model.load_parameters(inputs.parameters)
            return model
        # A backend that knows the paper's optimiser only need not know how to be asked for another.
        options: dict[str, Any] = {} if inputs.optimizer == PAPER_SGD else {"optimizer": inputs.optimizer}
        if inputs.recompute:
            options["recompute"] = True
        return self.backend.build(inputs.config, inputs.parameters, self.dtype, self.device, **options)

    def keep(self, inputs: Inputs, model: Model) -> None:
        """`model` has answered every question, and may be used again."""
        if not inputs.optimizer_remembers:
            self._models[inputs.config, inputs.optimizer, inputs.recompute] = model
            if len(self._models) > MODELS_KEPT:
                del self._models[next(iter(self._models))]  # the one that has been out of use for longest


@dataclass
class Sitting:
    """One target doing one case."""

    target: Target
    results: list[Result] = field(default_factory=list)
    answers: Answers = field(default_factory=dict)  # to the checks that it answered at all


def examine(case: Case, target: Target, run: str = "") -> Sitting:
    """Build one model, ask it every question of the case, and compare the answers with the right ones.

    Whatever a backend raises is its answer to that question; the next one is asked all the same.
    """
    sitting = Sitting(target)
    inputs, expected = case.inputs(), case.expected()
    model: Model | None = None
    for check in case.checks:
        right = expected[check.name]
        try:
            if model is None:
                model = target.model(inputs)
            answer = check.ask(model, inputs)
            if not case.complete:
                answer = {name: tensor for name, tensor in answer.items() if name in right}
            if check.name == "parameters":
                _check_dtype(answer, target.dtype)
            errors = compare(answer, right, target.dtype, case.tolerance(target.dtype, check))
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            sitting.results.append(_result(case, check, target, run, case.against, message=message))
        else:
            sitting.answers[check.name] = answer
            sitting.results.append(_result(case, check, target, run, case.against, errors))
    if model is not None and len(sitting.answers) == len(case.checks):
        target.keep(inputs, model)
    return sitting


def compare_pairs(case: Case, sittings: Sequence[Sitting], run: str = "") -> Iterator[Result]:
    """Every two targets of the same dtype against each other; of each check only the worst tensor is kept."""
    for one, other in combinations(sittings, 2):
        if one.target.dtype != other.target.dtype or case.against in (one.target.name, other.target.name):
            continue
        for check in case.checks:
            if check.name not in one.answers or check.name not in other.answers:
                continue  # the result against the reference has said so already
            dtype = one.target.dtype
            allowed = tolerance(dtype, check.name, other.target.name)
            errors = compare(one.answers[check.name], other.answers[check.name], dtype, allowed)
            worst = max(errors, key=lambda e: e.max_rel)
            yield _result(case, check, one.target, run, other.target.name, [worst])


def run_suite(cases: Sequence[Case], targets: Sequence[Target], run: str = "", jobs: int = 1) -> Iterator[list[Result]]:
    """The results of one case after the other: of every target against the right answers, then of all pairs.

    Args:
        cases: to be done.
        targets: to do them.
        run: identifier that the results carry.
        jobs: how many backends may work at the same time, each in a thread of its own.
    """
    backends = list(dict.fromkeys(target.name for target in targets))

    def sit(case: Case, backend: str) -> list[Sitting]:
        own = [t for t in targets if t.name == backend and t.dtype in case.dtypes]
        return [examine(case, target, run) for target in own]

    with ThreadPoolExecutor(jobs) as pool:
        for case in cases:
            case.expected()  # once, before several threads ask for it
            sittings = [s for of_one in pool.map(partial(sit, case), backends) for s in of_one]
            yield [*(r for s in sittings for r in s.results), *compare_pairs(case, sittings, run)]


def _check_dtype(tensors: Tensors, dtype: str) -> None:
    for name, tensor in tensors.items():
        if np.issubdtype(tensor.dtype, np.floating) and tensor.dtype != dtype:
            raise ValueError(f"{name} has dtype {tensor.dtype}, the model was built with {dtype}")


def _result(
    case: Case,
    check: Check,
    target: Target,
    run: str,
    against: str,
    errors: Sequence[TensorError] = (),
    message: str = "",
) -> Result:
    wrong = [e for e in errors if not e.within_tolerance]
    return Result(
        run=run,
        case=case.name,
        check=check.name,
        clauses=tuple(dict.fromkeys((*case.clauses, *check.clauses))),
        backend=target.name,
        device=target.device or "default",
        dtype=target.dtype,
        against=against,
        verdict=Verdict.FAILED if wrong or message else Verdict.PASSED,
        errors=tuple(errors),
        message=message or "; ".join(map(str, wrong[:3])),
    )
