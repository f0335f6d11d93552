"""What all ports need and no framework is needed for."""

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
    """What a model sees of the data at one step, as the port's own tensors.

    Attributes:
        tokens: (B, T) integers.
        targets: (B, T) integers; None where nothing is scored.
        state: per layer (B, H) before the window; None is zero.
        masks: of the window; None drops nothing.
        length: (), so many time steps are there, the others are padding; None: all.
    """

    tokens: Any
    targets: Any
    state: Any
    masks: Any
    length: Any = None


class Regularization(NamedTuple):
    """Of activations, SPEC.md 5.11: numbers or scalars of the port; None where it is off.

    Attributes:
        activation: coefficient of the squared outputs.
        temporal: coefficient of their squared changes.
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
    """Tokens and targets as integer arrays (B, T), when all that goes into a model fits the configuration.

    Args:
        config: the architecture.
        tokens: (B, T) integers below V.
        targets: likewise, or None.
        state: per layer (B, H), arrays of any framework; None is zero.
        masks: as `rhn.VariationalMasks` states; None drops nothing.
        length: of the window without its padding, 1 to T, or None.

    Raises:
        ValueError: something does not fit.
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
    """`device`, if it is available; None is the last of `available`, the framework's preference.

    Raises:
        ValueError: there is no such device.
    """
    if device is None:
        return available[-1]
    if device not in available:
        raise refusal("device", device, f"one of those that are here: {', '.join(available)}")
    return device


def steps_per_slice(length: int, batch_size: int, least_rows: int) -> int:
    """Time steps of the slices of a window (T, B) that a backward treats one after the other.

    They are the fewest that make up `least_rows` rows (time x batch) or more, and of which the window has a whole
    number, so that a loop over slices is one program; all, if there are none.
    """
    whole = (steps for steps in range(1, length) if length % steps == 0 and steps * batch_size >= least_rows)
    return next(whole, length)


MOST_LOGITS = 2**26  # that are made at once when a window is scored: 256 MiB in float32


def rows_per_chunk(rows: int, vocab_size: int) -> int:
    """Rows (time x batch) whose logits are made at once when a window is scored: all, up to `MOST_LOGITS` logits."""
    return min(rows, max(1, MOST_LOGITS // vocab_size))


MOST_STEPS_IN_FLIGHT = 3


class StepsInFlight:
    """Keeps the host from running ahead of the device by more than `MOST_STEPS_IN_FLIGHT` training steps.

    That many keep the device busy. More would only hold memory for their windows, and a run that is told to stop would
    have to wait for them.

    Args:
        wait: for what a step has left to wait for.
    """

    def __init__(self, wait: Callable[[Any], object]) -> None:
        self._wait = wait
        self._steps: deque[Any] = deque()

    def add(self, step: Any) -> None:
        """Another step has been handed to the device; waits for the oldest one, if there are too many."""
        self._steps.append(step)
        if len(self._steps) > MOST_STEPS_IN_FLIGHT:
            self._wait(self._steps.popleft())


class OptimizerMemory(NamedTuple):
    """`rhn.spec.optimizers.OptimizerState` by what it is; what is not remembered is None.

    Attributes:
        step: steps that Adam has taken.
        mean: Adam's decayed mean of the gradients.
        square: Adam's decayed mean of their squares.
        averaged_steps: steps that the average holds; not None once averaging is on.
        average: mean of the parameters after each of these steps.
        momentum: decayed sum of the gradients of SGD with momentum; the same as None if all of it is zero.
    """

    step: int | None = None
    mean: Tensors | None = None
    square: Tensors | None = None
    averaged_steps: int | None = None
    average: Tensors | None = None
    momentum: Tensors | None = None


def unpack_optimizer_state(state: OptimizerState) -> OptimizerMemory:
    """The tensors of `state` by what they are."""

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
            continue  # as before the first step
        if isinstance(value, Mapping):
            state |= {f"{name}.{parameter}": np.array(tensor) for parameter, tensor in value.items()}
        elif value is not None:
            state[name] = np.array(value)
    return state
