"""Code that all ports share and that needs no framework: checks, slices, optimiser state, choice of a device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rhn.spec.arguments import check_length, check_masks, check_state, check_targets, check_tokens, refusal
from rhn.spec.config import RHNConfig
from rhn.spec.masks import VariationalMasks
from rhn.spec.optimizers import OptimizerState

Tensors = Mapping[str, NDArray[Any]]  # by the names of `rhn.spec.parameters`


class Window(NamedTuple):
    """What a model reads in one step, as the port's own tensors.

    Attributes:
        tokens: (B, T) integers.
        targets: (B, T) integers; None if nothing is scored.
        state: per layer (B, H), the state before the window; None is zero.
        masks: the masks of the window; None drops nothing.
        length: (), number of time steps before the padding; None: all T.
    """

    tokens: Any
    targets: Any
    state: Any
    masks: Any
    length: Any = None


class Regularization(NamedTuple):
    """Regularisation of activations (SPEC.md 5.11), as numbers or scalars of the port; None where it is off.

    Attributes:
        activation: coefficient of the squared outputs.
        temporal: coefficient of the squared changes of the outputs.
    """

    activation: Any = None
    temporal: Any = None


NO_REGULARIZATION = Regularization()


def check_window(
    config: RHNConfig,
    tokens: ArrayLike,
    targets: ArrayLike | None = None,
    state: Sequence[Any] | None = None,
    masks: VariationalMasks | None = None,
    length: int | None = None,
) -> tuple[NDArray[np.integer], NDArray[np.integer] | None]:
    """Check that a window fits the configuration, and return tokens and targets as integer arrays (B, T).

    Args:
        config: the architecture.
        tokens: (B, T) integers below V.
        targets: (B, T) integers below V, or None.
        state: per layer (B, H), arrays of any framework; None is zero.
        masks: with the shapes of `rhn.VariationalMasks`; None drops nothing.
        length: number of time steps before the padding, 1 to T, or None.

    Raises:
        ValueError: an argument does not fit.
    """
    tokens = check_tokens("tokens", tokens, config.vocab_size)
    if targets is not None:
        targets = check_targets(targets, tokens.shape, config.vocab_size)
    if state is not None:
        check_state(config, state, len(tokens))
    if masks is not None:
        check_masks(config, masks, *tokens.shape)
    if length is not None:
        check_length(length, tokens)
    return tokens, targets


def choose_device(device: str | None, available: Sequence[str]) -> str:
    """`device`, if it is available; for None the last of `available`, which is the framework's preference.

    Raises:
        ValueError: the device is not available.
    """
    if device is None:
        return available[-1]
    if device not in available:
        raise refusal("device", device, f"an available device: {', '.join(available)}")
    return device


def steps_per_slice(length: int, batch_size: int, least_rows: int) -> int:
    """Time steps per slice, for a backward pass that goes through a window (T, B) slice by slice.

    It is the smallest number of time steps that divides the window evenly, so that a loop over slices is one program,
    and that gives at least `least_rows` rows (time x batch). If there is no such number, the slice is the whole window.
    """
    whole = (steps for steps in range(1, length) if length % steps == 0 and steps * batch_size >= least_rows)
    return next(whole, length)


MOST_LOGITS = 2**26  # computed at once when a window is scored: 256 MiB in float32


def rows_per_chunk(rows: int, vocab_size: int) -> int:
    """Rows (time x batch) whose logits are computed at once when a window is scored: at most `MOST_LOGITS` logits."""
    return min(rows, max(1, MOST_LOGITS // vocab_size))


MOST_STEPS_IN_FLIGHT = 3


class StepsInFlight:
    """Keeps the host from running ahead of the device by more than `MOST_STEPS_IN_FLIGHT` training steps.

    This number keeps the device busy. More steps would only take memory for their windows, and a run that is told to
    stop would have to wait for them.

    Args:
        wait: waits for the object that a step has returned.
    """

    def __init__(self, wait: Callable[[Any], object]) -> None:
        self._wait = wait
        self._steps: deque[Any] = deque()

    def add(self, step: Any) -> None:
        """Note that a step was given to the device; wait for the oldest step if there are too many."""
        self._steps.append(step)
        if len(self._steps) > MOST_STEPS_IN_FLIGHT:
            self._wait(self._steps.popleft())


class OptimizerMemory(NamedTuple):
    """`rhn.spec.optimizers.OptimizerState`, sorted by kind; an absent kind is None.

    Attributes:
        step: number of steps that Adam has taken.
        mean: Adam's decayed mean of the gradients.
        square: Adam's decayed mean of the squared gradients.
        averaged_steps: number of steps in the average; not None once averaging is on.
        average: mean of the parameters after each of these steps.
        momentum: decayed sum of the gradients, for SGD with momentum; all zeros mean the same as None.
    """

    step: int | None = None
    mean: Tensors | None = None
    square: Tensors | None = None
    averaged_steps: int | None = None
    average: Tensors | None = None
    momentum: Tensors | None = None


def unpack_optimizer_state(state: OptimizerState) -> OptimizerMemory:
    """The tensors of `state`, sorted by kind."""

    def named(kind: str) -> Tensors | None:
        prefix = f"{kind}."
        return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)} or None

    def counter(name: str) -> int | None:
        return int(state[name]) if name in state else None

    return OptimizerMemory(
        step=counter("step"),
        mean=named("mean"),
        square=named("square"),
        averaged_steps=counter("averaged_steps"),
        average=named("average"),
        momentum=named("momentum"),
    )


def pack_optimizer_state(memory: OptimizerMemory) -> OptimizerState:
    """The inverse of `unpack_optimizer_state`; copies."""
    state: OptimizerState = {}
    for name in OptimizerMemory._fields:
        value = getattr(memory, name)
        if name == "momentum" and value is not None and not any(np.any(tensor) for tensor in value.values()):
            continue  # the same as before the first step
        if isinstance(value, Mapping):
            state |= {f"{name}.{parameter}": np.array(tensor) for parameter, tensor in value.items()}
        elif value is not None:
            state[name] = np.array(value)
    return state
