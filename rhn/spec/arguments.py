"""Checks of arguments. All error messages have one form:

hidden_size=0 is not accepted: expected an integer of at least 1
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from rhn.spec.config import RHNConfig
    from rhn.spec.masks import VariationalMasks


def refusal(name: str, value: Any, expected: str) -> ValueError:
    """The error for a wrong argument. Its message is one sentence: the argument, its value, and what is expected."""
    try:
        shown = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        shown = f"an integer of {value.bit_length():,} bits" if isinstance(value, int) else type(value).__name__
    return ValueError(f"{name}={shown} is not accepted: expected {expected}")


# ---------------------------------------------------------------------------------------------------------------------
# Single values
# ---------------------------------------------------------------------------------------------------------------------


def check_integer(name: str, value: Any, least: int = 1) -> int:
    """`value`, if it is an integer of at least `least`.

    Raises:
        ValueError: otherwise.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise refusal(name, value, f"an integer of at least {least}")
    return int(value)


def check_size(name: str, value: Any) -> int:
    """`value`, if it is an integer of at least 1.

    Raises:
        ValueError: otherwise.
    """
    return check_integer(name, value, least=1)


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number of Python or NumPy; True and False are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def check_number(name: str, value: Any, *, zero: bool = False) -> None:
    """Raise ValueError unless `value` is a finite number above 0, or 0 itself where `zero` allows it."""
    if not is_number(value) or value < 0 or (value == 0 and not zero):
        raise refusal(name, value, "a number of at least 0" if zero else "a number above 0")


def check_fraction(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a number from 0 up to, not including, 1."""
    if not is_number(value) or not 0.0 <= value < 1.0:
        raise refusal(name, value, "a number from 0 up to, not including, 1")


def check_flag(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise refusal(name, value, "True or False")


def check_choice(name: str, value: Any, accepted: Collection[Any]) -> None:
    """Raise ValueError unless `value` is one of `accepted`, of the same type."""
    if not any(type(value) is type(choice) and value == choice for choice in accepted):
        raise refusal(name, value, f"one of {', '.join(map(str, accepted))}")


# ---------------------------------------------------------------------------------------------------------------------
# Inputs of a model: tokens, targets, state, masks
# ---------------------------------------------------------------------------------------------------------------------


def check_tokens(name: str, tokens: ArrayLike, vocab_size: int | None = None) -> NDArray[np.integer]:
    """`tokens` as an integer array (B, T) with both sizes at least 1, each below `vocab_size` if that is given.

    Raises:
        ValueError: otherwise; the message begins with `name`.
    """
    array = np.asarray(tokens)
    if array.ndim != 2 or 0 in array.shape or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"{name} of shape {array.shape} and dtype {array.dtype} are not accepted: expected (B, T) integers"
        )
    if vocab_size is not None and (array.min() < 0 or array.max() >= vocab_size):
        raise ValueError(
            f"{name} from {array.min()} to {array.max()} are not accepted: expected integers from 0 to {vocab_size - 1}"
        )
    return array


def check_targets(targets: ArrayLike, tokens_shape: tuple[int, ...], vocab_size: int) -> NDArray[np.integer]:
    """`targets` as an integer array (B, T) of the shape of the tokens, each below `vocab_size`.

    Raises:
        ValueError: otherwise.
    """
    array = check_tokens("targets", targets, vocab_size)
    if array.shape != tokens_shape:
        raise ValueError(f"targets of shape {array.shape} are not accepted: expected the tokens' shape {tokens_shape}")
    return array


def check_length(length: int, tokens: NDArray[Any]) -> None:
    """Raise ValueError unless `length` is an integer from 1 to the number of time steps of `tokens` (B, T)."""
    if isinstance(length, bool) or not isinstance(length, numbers.Integral) or not 1 <= length <= tokens.shape[-1]:
        raise refusal("length", length, f"an integer from 1 to {tokens.shape[-1]}, the time steps of the window")


def check_state(config: RHNConfig, state: Sequence[Any], batch_size: int) -> None:
    """Raise ValueError unless `state` is one array (B, H) per layer, of any framework."""
    shapes = [tuple(s.shape) for s in state]
    expected = [(batch_size, config.hidden_size)] * config.num_layers
    if shapes != expected:
        raise ValueError(f"state of shapes {shapes} is not accepted: expected one array per layer, {expected}")


def check_masks(config: RHNConfig, masks: VariationalMasks, batch_size: int, length: int) -> None:
    """Raise ValueError unless every given mask has the shape that `VariationalMasks` states."""
    gate_masks = config.num_gate_masks
    hidden_size = config.hidden_size
    expected: dict[str, tuple[int, ...]] = {"embedding": (batch_size, length), "carried": (batch_size,)}
    for i in range(config.num_layers):
        expected[f"input[{i}]"] = (gate_masks, batch_size, config.input_size(i))
        expected[f"state[{i}]"] = (gate_masks, batch_size, hidden_size)
        expected[f"update[{i}]"] = (batch_size, hidden_size)
    expected["output"] = (batch_size, hidden_size)

    given = {"embedding": masks.embedding, "output": masks.output, "carried": masks.carried}
    for name in ("input", "state", "update"):
        per_layer = getattr(masks, name)
        if per_layer is not None:
            if len(per_layer) != config.num_layers:
                raise ValueError(
                    f"masks.{name} of {len(per_layer)} entries is not accepted: expected one per layer,"
                    f" {config.num_layers}"
                )
            given.update({f"{name}[{i}]": mask for i, mask in enumerate(per_layer)})
    for name, mask in given.items():
        if mask is None or tuple(mask.shape) == expected[name]:
            continue
        per_time_step = (*expected[name][:-1], length, expected[name][-1])
        may_be_per_time_step = name == "output" or name.startswith("input")
        if not (may_be_per_time_step and tuple(mask.shape) == per_time_step):
            raise ValueError(
                f"masks.{name} of shape {tuple(mask.shape)} is not accepted: expected shape {expected[name]}"
                + (f" or, per time step, {per_time_step}" if may_be_per_time_step else "")
            )
