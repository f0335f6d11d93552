"""Makes the numbers of a described case: parameters, windows and masks, all exactly representable in float32."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rhn.spec.config import RHNConfig
from rhn.spec.masks import DropRates, VariationalMasks, sample_masks
from rhn.spec.optimizers import PAPER_SGD, Optimizer
from rhn.spec.parameters import Parameters, parameter_shapes
from rhn.spec.random import Purpose, uniform
from rhn_conformance.case import DTYPES, Inputs, Step, Window

NOTHING_DROPPED = DropRates()

# Indices of draws besides the parameters', which count up from 0.
_TOKENS, _STATE = 10_000, 20_000

# The first step number for which the masks of every case drop something and keep something.
_DRAW = 7


@dataclass(frozen=True)
class Description:
    """One model and a few consecutive windows, without their numbers.

    Attributes:
        name: unique; the random numbers of the case are a function of it.
        clauses: numbers of SPEC.md.
        config: the architecture.
        batch_size: B.
        length: T of one window; `forward` gets two windows in one.
        num_steps: training steps, each on a window of its own.
        rates: drop rates of the masks; 0 gives no mask of that kind.
        time_masks: input and output masks are drawn for each time step.
        reset_probability: probability that a row starts a window from zero.
        given_state: start from a random state, not from zero.
        repeat_tokens: draw tokens from three word types only.
        weight_scale: weights are uniform in (-weight_scale, weight_scale), biases too.
        saturated: add +20 or -20 to two thirds of all gate biases.
        optimizer: update rule of the training steps.
        averaging: the weights are averaged from the first step on.
        recompute: the backend may compute parts of the forward again in the backward.
        learning_rate: learning rate of the optimiser.
        weight_decay: coefficient; 0 is none.
        extras: further arguments of the training steps, by name.
        max_grad_norm: clipping is active if the gradient norm is larger.
        dtypes: the dtypes in which the case is run.
    """

    name: str
    clauses: tuple[str, ...]
    config: RHNConfig
    batch_size: int = 3
    length: int = 3
    num_steps: int = 2
    rates: DropRates = NOTHING_DROPPED
    time_masks: bool = False
    reset_probability: float = 0.0
    given_state: bool = False
    repeat_tokens: bool = False
    weight_scale: float = 0.7
    saturated: bool = False
    optimizer: Optimizer = PAPER_SGD
    averaging: bool = False
    recompute: bool = False
    learning_rate: float = 0.2
    weight_decay: float = 0.0
    max_grad_norm: float = 100.0
    extras: tuple[tuple[str, float | int], ...] = ()
    dtypes: tuple[str, ...] = DTYPES


def make_inputs(description: Description) -> Inputs:
    """The numbers of `description`: a pure function of it, the same on every machine."""
    seed = zlib.crc32(description.name.encode()) + _DRAW
    config, batch_size, length = description.config, description.batch_size, description.length
    num_windows = max(2, description.num_steps)

    word_types = min(3, config.vocab_size) if description.repeat_tokens else config.vocab_size
    draws = uniform(seed, Purpose.GENERATION, (batch_size, num_windows * length + 1), index=_TOKENS)
    stream = (draws * word_types).astype(np.int32)  # (B, windows * T + 1)
    tokens, targets = stream[:, :-1], stream[:, 1:]

    def window(first: int, last: int, step: int) -> Window:
        where = slice(first * length, last * length)
        drawn = sample_masks(
            config,
            tokens[:, where],
            description.rates,
            seed,
            step,
            time_masks=description.time_masks,
            reset_probability=description.reset_probability,
        )
        has_masks = any(description.rates) or description.reset_probability
        return Window(tokens[:, where], targets[:, where], representable(drawn) if has_masks else None)

    double_window = window(0, 2, 0)
    windows = [double_window.columns(slice(0, length)), *(window(k, k + 1, k) for k in range(1, description.num_steps))]
    return Inputs(
        config=config,
        parameters=_parameters(description, seed),
        state=_state(description, seed) if description.given_state else None,
        double_window=double_window,
        steps=tuple(
            Step(
                w,
                description.learning_rate,
                description.weight_decay,
                description.max_grad_norm,
                dict(description.extras),
            )
            for w in windows
        ),
        optimizer=description.optimizer,
        averaging=description.averaging,
        recompute=description.recompute,
        time_masks=description.time_masks,
    )


def _parameters(description: Description, seed: int) -> Parameters:
    parameters: Parameters = {}
    for index, (name, shape) in enumerate(parameter_shapes(description.config).items()):
        value = (2.0 * uniform(seed, Purpose.PARAMETERS, shape, index=index) - 1.0) * description.weight_scale
        if description.saturated and name.startswith("layers.") and name.endswith(".bias"):
            value[:, 1:, 0::3] += 20.0  # (L, G, H): every third unit of t and c wide open
            value[:, 1:, 1::3] -= 20.0  # and every third shut
        parameters[name] = value.astype(np.float32)
    return parameters


def _state(description: Description, seed: int) -> list[NDArray]:
    shape = (description.batch_size, description.config.hidden_size)
    return [
        float32(1.8 * uniform(seed, Purpose.GENERATION, shape, index=_STATE + layer) - 0.9)  # (B, H)
        for layer in range(description.config.num_layers)
    ]


def representable(masks: VariationalMasks) -> VariationalMasks:
    """The masks with each entry rounded to float32, so that both dtypes see the same value."""
    return masks.map(float32)


def float32(array: NDArray) -> NDArray[np.float64]:
    """Rounded to float32, stored as float64."""
    return array.astype(np.float32).astype(np.float64)
