"""Runs the checks of a case on a backend, and judges the answers."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from rhn.backend import Backend, Layer, Model
from rhn.compare import TensorError, compare
from rhn_conformance.case import Answers, Case, Check, Inputs, LayerInputs, Tensors
from rhn_conformance.results import Result, Verdict
from rhn_conformance.tolerances import tolerance

MODELS_KEPT = 6  # the compiled programs of a model take tens of megabytes


@dataclass
class Target:
    """A backend to test, and the models that it has built so far, by their kind."""

    backend: Backend
    dtype: str
    device: str | None = None
    name: str = ""  # the name by which it was requested; else its own
    _models: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.name = self.name or self.backend.name

    def model(self, inputs: Inputs | LayerInputs) -> Model | Layer:
        """A model, or layers, with the parameters of `inputs`.

        An earlier model of the same kind takes them over, so that its compiled programs are used again; but
        not if its optimiser remembers something.
        """
        model = self._models.pop(inputs.kind, None)
        if model is None:
            return inputs.build(self.backend, self.dtype, self.device)
        model.load_parameters(inputs.parameters)
        return model

    def keep(self, inputs: Inputs | LayerInputs, model: Any) -> None:
        """Keep `model`, which has answered every question, to be used again."""
        if inputs.reusable:
            self._models[inputs.kind] = model
            if len(self._models) > MODELS_KEPT:
                del self._models[next(iter(self._models))]  # the one that was not used for the longest time


@dataclass
class Sitting:
    """One case, answered by one backend in one dtype.

    Attributes:
        case: name of the case.
        backend: the backend's name, as it was requested.
        dtype: dtype of the arithmetic.
        answers: the answers to the checks, as far as there are any.
        failures: why there is no answer, for the other checks.
        seconds: time that each check took, building and compiling included.
        results: the verdicts on all this.
    """

    case: str
    backend: str
    dtype: str
    answers: Answers = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)


def examine(case: Case, target: Target, run: str = "") -> Sitting:
    """Build one model, ask it every question of the case, and compare the answers with the right ones."""
    sitting = ask(case, target)
    judge_sitting(case, sitting, target.device, run)
    return sitting


def ask(case: Case, target: Target) -> Sitting:
    """Build one model, and ask it every question of the case. This does not need the right answers.

    If a backend raises an error, that question has failed, and the next one is asked. A backend that does not have
    what the case tests is not asked, and has neither answers nor failures.
    """
    sitting = Sitting(case.name, target.name, target.dtype)
    if not case.is_asked_of(target.backend):
        return sitting
    inputs = case.inputs()
    model: Model | Layer | None = None
    for check in case.checks:
        started = time.monotonic()
        try:
            if model is None:
                model = target.model(inputs)
            sitting.answers[check.name] = check.ask(model, inputs)
        except Exception as error:
            sitting.failures[check.name] = f"{type(error).__name__}: {error}"
        sitting.seconds[check.name] = time.monotonic() - started
    if model is not None and not sitting.failures:
        target.keep(inputs, model)
    return sitting


def judge_sitting(case: Case, sitting: Sitting, device: str | None = None, run: str = "") -> None:
    """Compare the answers of a sitting with the right ones; an answer that cannot be compared becomes a failure."""
    where = _Where(run, sitting.backend, device, sitting.dtype)
    for check in case.checks:
        errors: list[TensorError] = []
        if check.name in sitting.answers:
            try:
                errors = _errors(case, check, sitting)
            except Exception as error:
                sitting.failures[check.name] = f"{type(error).__name__}: {error}"
                del sitting.answers[check.name]
        elif check.name not in sitting.failures:
            continue  # not asked
        message, seconds = sitting.failures.get(check.name, ""), sitting.seconds.get(check.name, 0.0)
        sitting.results.append(where.result(case, check, case.against, errors, message, seconds))


def _errors(case: Case, check: Check, sitting: Sitting) -> list[TensorError]:
    answer, right = sitting.answers[check.name], case.expected()[check.name]
    if not case.complete:
        answer = {name: tensor for name, tensor in answer.items() if name in right}
        sitting.answers[check.name] = answer  # and no other tensors are compared with other backends
    if check.name == "parameters":
        _check_dtype(answer, sitting.dtype)
    return compare(answer, right, sitting.dtype, case.tolerance(sitting.dtype, check))


def failed_sitting(case: Case, backend: str, dtype: str, message: str) -> Sitting:
    """The sitting of a backend whose process has died: every check has failed."""
    return Sitting(case.name, backend, dtype, failures={check.name: message for check in case.checks})


def compare_pairs(
    case: Case, sittings: Sequence[Sitting], device: str | None = None, run: str = ""
) -> Iterator[Result]:
    """Every two backends in the same dtype against each other; of each check only the worst tensor is kept."""
    for one, other in combinations(sittings, 2):
        if one.dtype != other.dtype or case.against in (one.backend, other.backend):
            continue
        where = _Where(run, one.backend, device, one.dtype)
        for check in case.checks:
            if check.name not in one.answers or check.name not in other.answers:
                continue  # the result against the reference says so already
            allowed = tolerance(one.dtype, check.name, other.backend)
            errors = compare(one.answers[check.name], other.answers[check.name], one.dtype, allowed)
            worst = max(errors, key=lambda e: e.max_rel)
            yield where.result(case, check, other.backend, [worst])


@dataclass(frozen=True)
class _Where:
    """The fields that all results of one sitting share."""

    run: str
    backend: str
    device: str | None
    dtype: str

    def result(
        self,
        case: Case,
        check: Check,
        against: str,
        errors: Sequence[TensorError] = (),
        message: str = "",
        seconds: float = 0.0,
    ) -> Result:
        wrong = [e for e in errors if not e.within_tolerance]
        return Result(
            run=self.run,
            case=case.name,
            check=check.name,
            clauses=tuple(dict.fromkeys((*case.clauses, *check.clauses))),
            backend=self.backend,
            device=self.device or "default",
            dtype=self.dtype,
            against=against,
            verdict=Verdict.FAILED if wrong or message else Verdict.PASSED,
            errors=tuple(errors),
            message=message or "; ".join(map(str, wrong[:3])),
            seconds=round(seconds, 4),
        )


def _check_dtype(tensors: Tensors, dtype: str) -> None:
    for name, tensor in tensors.items():
        if np.issubdtype(tensor.dtype, np.floating) and tensor.dtype != dtype:
            raise ValueError(f"{name} has dtype {tensor.dtype}, the model was built with {dtype}")
