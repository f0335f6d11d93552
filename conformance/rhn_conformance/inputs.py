"""From the description of a case to its numbers: parameters, windows, masks, all exactly representable in float32."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rhn.spec.config import RHNConfig
from rhn.spec.masks import VariationalMasks, sample_masks
from rhn.spec.optimizers import PAPER_SGD, Optimizer
from rhn.spec.parameters import Parameters, parameter_shapes
from rhn.spec.random import Purpose, uniform
from rhn_conformance.cases import Case

# Indices of draws besides the parameters', which count up from 0.
_TOKENS, _STATE = 10_000, 20_000

# The first number with which the masks of every case drop something and keep something.
_DRAW = 7


@dataclass(frozen=True)
class Window:
    """What a model sees at once: tokens (B, T), targets (B, T) and masks."""

    tokens: NDArray[np.integer]
    targets: NDArray[np.integer]
    masks: VariationalMasks | None


@dataclass(frozen=True)
class Step:
    """A training step: its window and what the optimiser is told."""

    window: Window
    learning_rate: float
    weight_decay: float
    max_grad_norm: float


@dataclass(frozen=True)
class Inputs:
    """All that goes into a model in one case.

    Attributes:
        config: the architecture.
        parameters: float32.
        state: before the first window, per layer (B, H) float64; None for zero.
        double_window: two windows in one, (B, 2T), under the masks of the first.
        steps: consecutive training steps. The first one's window is the first half of `double_window`; each further
            step has masks of its own.
        optimizer: of these steps.
        averaging: the weights are averaged from the first step on.
        recompute: see `rhn.backend.Backend.build`.
    """

    config: RHNConfig
    parameters: Parameters
    state: list[NDArray] | None
    double_window: Window
    steps: tuple[Step, ...]
    optimizer: Optimizer = PAPER_SGD
    averaging: bool = False
    recompute: bool = False

    @property
    def optimizer_remembers(self) -> bool:
        """The optimiser has a memory, which plain SGD has not."""
        return self.averaging or self.optimizer.name != "sgd"

    def halves(self) -> tuple[Window, Window]:
        """The two windows of `double_window`, both with its masks."""
        length = self.double_window.tokens.shape[1] // 2
        return columns(self.double_window, slice(0, length)), columns(self.double_window, slice(length, None))


def make_inputs(case: Case) -> Inputs:
    """The numbers of `case`: a pure function of it, the same on every machine."""
    seed = zlib.crc32(case.name.encode()) + _DRAW
    config, batch_size, length = case.config, case.batch_size, case.length
    num_windows = max(2, case.num_steps)

    word_types = min(3, config.vocab_size) if case.repeat_tokens else config.vocab_size
    draws = uniform(seed, Purpose.GENERATION, (batch_size, num_windows * length + 1), index=_TOKENS)
    stream = (draws * word_types).astype(np.int32)  # (B, windows * T + 1)
    tokens, targets = stream[:, :-1], stream[:, 1:]

    def window(first: int, last: int, step: int) -> Window:
        where = slice(first * length, last * length)
        masks = representable(sample_masks(config, tokens[:, where], case.rates, seed, step))
        return Window(tokens[:, where], targets[:, where], masks if any(case.rates) else None)

    double_window = window(0, 2, 0)
    windows = [columns(double_window, slice(0, length)), *(window(k, k + 1, k) for k in range(1, case.num_steps))]
    return Inputs(
        config=config,
        parameters=_parameters(case, seed),
        state=_state(case, seed) if case.given_state else None,
        double_window=double_window,
        steps=tuple(Step(w, case.learning_rate, case.weight_decay, case.max_grad_norm) for w in windows),
        optimizer=case.optimizer,
        averaging=case.averaging,
        recompute=case.recompute,
    )


def _parameters(case: Case, seed: int) -> Parameters:
    parameters: Parameters = {}
    for index, (name, shape) in enumerate(parameter_shapes(case.config).items()):
        value = (2.0 * uniform(seed, Purpose.PARAMETERS, shape, index=index) - 1.0) * case.weight_scale
        if case.saturated and name.startswith("layers.") and name.endswith(".bias"):
            value[:, 1:, 0::3] += 20.0  # (L, G, H): every third unit of t and c wide open
            value[:, 1:, 1::3] -= 20.0  # and every third shut
        parameters[name] = value.astype(np.float32)
    return parameters


def _state(case: Case, seed: int) -> list[NDArray]:
    shape = (case.batch_size, case.config.hidden_size)
    return [
        _float32(1.8 * uniform(seed, Purpose.GENERATION, shape, index=_STATE + layer) - 0.9)  # (B, H)
        for layer in range(case.config.num_layers)
    ]


def columns(window: Window, where: slice) -> Window:
    """The time steps in `where`."""
    masks = window.masks
    if masks is not None and masks.embedding is not None:
        masks = masks._replace(embedding=masks.embedding[:, where])  # (B, T): the only mask with a time axis
    return Window(window.tokens[:, where], window.targets[:, where], masks)


def first_row_everywhere(window: Window) -> Window:
    """Every batch row replaced by the first."""
    batch_size = len(window.tokens)

    def repeat(array: NDArray, axis: int = 0) -> NDArray:
        return np.repeat(array.take([0], axis=axis), batch_size, axis=axis)

    masks = window.masks
    if masks is not None:
        masks = VariationalMasks(
            embedding=None if masks.embedding is None else repeat(masks.embedding),  # (B, T)
            input=None if masks.input is None else [repeat(m, axis=1) for m in masks.input],  # (M, B, E) each
            state=None if masks.state is None else [repeat(m, axis=1) for m in masks.state],  # (M, B, H) each
            output=None if masks.output is None else repeat(masks.output),  # (B, H)
        )
    return Window(repeat(window.tokens), repeat(window.targets), masks)


def representable(masks: VariationalMasks) -> VariationalMasks:
    """The same masks with each entry rounded to float32, so that both dtypes see one and the same value."""
    return VariationalMasks(
        embedding=None if masks.embedding is None else _float32(masks.embedding),
        input=None if masks.input is None else [_float32(m) for m in masks.input],
        state=None if masks.state is None else [_float32(m) for m in masks.state],
        output=None if masks.output is None else _float32(masks.output),
    )


def _float32(array: NDArray) -> NDArray[np.float64]:
    """Rounded to float32, stored as float64."""
    return array.astype(np.float32).astype(np.float64)
