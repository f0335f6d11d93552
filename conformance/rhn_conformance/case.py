"""The terms of the suite: a case has inputs, checks that ask a model, and right answers.

All other modules of this package use these terms, so this module imports none of them except the tolerances.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rhn.backend import Backend, Layer, LayerBackend, Model
from rhn.compare import LIMIT
from rhn.processes import ParallelBackend
from rhn.spec.config import RHNConfig
from rhn.spec.layers import LayerConfig
from rhn.spec.masks import VariationalMasks
from rhn.spec.optimizers import PAPER_SGD, Optimizer
from rhn.spec.parameters import Parameters
from rhn_conformance.tolerances import tolerance

DTYPES = ("float64", "float32")

Tensors = dict[str, NDArray]
Answers = dict[str, Tensors]  # by the name of the check


@dataclass(frozen=True)
class Window:
    """What a model reads in one step: tokens (B, T), targets (B, T) and masks."""

    tokens: NDArray[np.integer]
    targets: NDArray[np.integer]
    masks: VariationalMasks | None

    def columns(self, where: slice) -> Window:
        """The time steps in `where`."""
        masks = None if self.masks is None else self.masks.columns(where)
        return Window(self.tokens[:, where], self.targets[:, where], masks)

    def first_row_everywhere(self) -> Window:
        """Every batch row replaced by the first."""
        batch_size = len(self.tokens)

        def repeat(array: NDArray, axis: int = 0) -> NDArray:
            return np.repeat(array.take([0], axis=axis), batch_size, axis=axis)

        masks = self.masks
        if masks is not None:
            masks = VariationalMasks(
                embedding=None if masks.embedding is None else repeat(masks.embedding),  # (B, T)
                input=None if masks.input is None else [repeat(m, axis=1) for m in masks.input],  # (M, B, E) each
                state=None if masks.state is None else [repeat(m, axis=1) for m in masks.state],  # (M, B, H) each
                output=None if masks.output is None else repeat(masks.output),  # (B, H), or (B, T, H)
                update=None if masks.update is None else [repeat(m) for m in masks.update],  # (B, H) each
                carried=None if masks.carried is None else repeat(masks.carried),  # (B,)
            )
        return Window(repeat(self.tokens), repeat(self.targets), masks)


@dataclass(frozen=True)
class Step:
    """A training step: its window, the optimiser's rates, and arguments that are optional for a model (3.5, 5.11)."""

    window: Window
    learning_rate: float
    weight_decay: float
    max_grad_norm: float
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """All inputs of a model in one case.

    Attributes:
        config: the architecture.
        parameters: the parameters, float32.
        state: the state before the first window, per layer (B, H), float64; None is zero.
        double_window: two windows in one, (B, 2T), with the masks of the first window; or a single window.
        steps: consecutive training steps. The window of the first step is the first half of `double_window`. Each
            further step has its own masks.
        optimizer: the update rule of these steps.
        averaging: whether the weights are averaged from the first step on.
        recompute: see `rhn.backend.Backend.build`.
        time_masks: whether input and output masks are drawn per time step.
    """

    config: RHNConfig
    parameters: Parameters
    state: list[NDArray] | None
    double_window: Window
    steps: tuple[Step, ...]
    optimizer: Optimizer = PAPER_SGD
    averaging: bool = False
    recompute: bool = False
    time_masks: bool = False

    @property
    def optimizer_remembers(self) -> bool:
        """Whether the optimiser has a state, which plain SGD does not have."""
        return self.averaging or self.optimizer.name != "sgd" or self.optimizer.momentum > 0

    @property
    def reusable(self) -> bool:
        """Whether the model can be used again for another case, with other parameters."""
        return not self.optimizer_remembers

    @property
    def kind(self) -> Hashable:
        """Models of one kind differ in their parameters only."""
        return self.config, self.optimizer, self.recompute

    @property
    def program(self) -> Hashable:
        """Cases of one program need no new compilation in a backend that compiles, except for other window shapes."""
        masks = self.double_window.masks
        return (
            self.config,
            self.recompute,
            masks and tuple(mask is None for mask in masks),
            self.time_masks,
            *self.steps[0].extras,
        )

    def build(self, backend: Backend, dtype: str, device: str | None) -> Model:
        """A new model with these parameters."""
        # A backend that has only the paper's optimiser need not accept the argument.
        options: dict[str, Any] = {} if self.optimizer == PAPER_SGD else {"optimizer": self.optimizer}
        if self.recompute:
            options["recompute"] = True
        return backend.build(self.config, self.parameters, dtype, device, **options)

    def windows(self) -> list[Window]:
        """`double_window` cut into windows of the length of a training step's; no state is reset between them."""
        length = self.steps[0].window.tokens.shape[1]
        starts = range(0, self.double_window.tokens.shape[1], length)
        first, *others = (self.double_window.columns(slice(start, start + length)) for start in starts)
        return [first, *map(_carrying_all, others)]


def _carrying_all(window: Window) -> Window:
    """The window, with no row that starts from zero."""
    if window.masks is None or window.masks.carried is None:
        return window
    return replace(window, masks=window.masks._replace(carried=np.ones_like(window.masks.carried)))


@dataclass(frozen=True)
class LayerInputs:
    """All inputs of layers on their own in one case; there is a mask, a state and a derivative for every cell.

    Attributes:
        config: the architecture.
        parameters: float32.
        x: (B, T, E).
        d_outputs: (B, T, D*H), derivative of the loss with respect to the outputs.
        d_state: per layer and direction (B, H), derivative of the loss with respect to the last state.
        state: before the first time step, per layer and direction (B, H); None for zero.
        lengths: (B,) valid time steps; None for all.
        masks: of inputs, states and updates; None drops nothing.
    """

    config: LayerConfig
    parameters: Parameters
    x: NDArray
    d_outputs: NDArray
    d_state: list[NDArray]
    state: list[NDArray] | None
    lengths: NDArray[np.integer] | None
    masks: VariationalMasks | None

    # Layers cannot be loaded with other parameters.
    reusable = False

    @property
    def kind(self) -> Hashable:
        """Layers of one kind differ in their parameters only."""
        return self.config

    @property
    def program(self) -> Hashable:
        """See `Inputs.program`."""
        return self.config, self.lengths is None, self.masks is None

    def build(self, backend: Backend, dtype: str, device: str | None) -> Layer:
        """New layers with these parameters."""
        if not isinstance(backend, LayerBackend):
            raise ValueError(f"backend {backend.name!r} makes no layers on their own: it has no method build_layer")
        return backend.build_layer(self.config, self.parameters, dtype, device)


@dataclass(frozen=True)
class Check:
    """One question to a model or to layers.

    Attributes:
        name: name of the check.
        clauses: clauses of SPEC.md that it tests, besides the clauses of the case.
        ask: the question. Checks run in the order of `CHECKS` on one model; only the training changes it.
        applies: whether the question makes sense for these inputs.
    """

    name: str
    clauses: tuple[str, ...]
    ask: Callable[[Any, Any], Tensors]  # of Model and Inputs, or of Layer and LayerInputs
    applies: Callable[[Inputs], bool] = lambda inputs: True


@dataclass(frozen=True)
class Case:
    """Inputs, the questions asked about them, and the right answers.

    Attributes:
        name: unique in the suite.
        clauses: clauses of SPEC.md, besides the clauses of the checks.
        checks: the questions, in order.
        inputs: makes the inputs.
        expected: gives the right answers; may be slow the first time.
        against: who gave the right answers: "reference" or "authors".
        dtypes: the dtypes in which a backend may compute.
        complete: False if the right answers are known for some tensors only.
        calibrated: False if its errors were never measured; SPEC.md 6.1 is then the tolerance.
        of_layers: it tests layers on their own, which are optional for a backend.
        of_processes: it tests several processes, which are optional for a backend.
    """

    name: str
    clauses: tuple[str, ...]
    checks: tuple[Check, ...]
    inputs: Callable[[], Any]  # Inputs, LayerInputs, or what has their attributes
    expected: Callable[[], Answers]
    against: str = "reference"
    dtypes: tuple[str, ...] = DTYPES
    complete: bool = True
    calibrated: bool = True
    of_layers: bool = False
    of_processes: bool = False

    def is_asked_of(self, backend: Backend) -> bool:
        """Whether the backend has what the case tests."""
        trains_in_processes = isinstance(backend, ParallelBackend) or getattr(backend, "emulates_processes", False)
        return (not self.of_layers or isinstance(backend, LayerBackend)) and (
            not self.of_processes or trains_in_processes
        )

    def tolerance(self, dtype: str, check: Check) -> float:
        """Largest accepted error relative to the largest entry."""
        return tolerance(dtype, check.name, self.against) if self.calibrated else LIMIT[dtype]

    def selected_by(self, text: str) -> bool:
        """Whether `text` is part of the name, or one of the clauses."""
        clauses = {clause for check in self.checks for clause in check.clauses}
        return text in self.name or text in self.clauses or text in clauses
