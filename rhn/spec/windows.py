"""Windows: what goes into a model with one, checked, and how a long one is cut into slices.

Masks are checked in `rhn.spec.masks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rhn.spec.config import RHNConfig


def check_tokens(name: str, tokens: ArrayLike, vocab_size: int | None = None) -> NDArray[np.integer]:
    """`tokens` as an integer array (B, T) with both sizes at least 1, each below `vocab_size` if that is given.

    Raises:
        ValueError: otherwise; the message begins with `name`.
    """
    array = np.asarray(tokens)
    if array.ndim != 2 or 0 in array.shape or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"{name} of shape {array.shape} and dtype {array.dtype} are not accepted: they must be (B, T) integers"
        )
    if vocab_size is not None and (array.min() < 0 or array.max() >= vocab_size):
        raise ValueError(
            f"{name} from {array.min()} to {array.max()} are not accepted: they must lie in 0 to {vocab_size - 1}"
        )
    return array


def check_targets(targets: ArrayLike, tokens_shape: tuple[int, ...], vocab_size: int) -> NDArray[np.integer]:
    """`targets` as an integer array (B, T) of the shape of the tokens, each below `vocab_size`.

    Raises:
        ValueError: otherwise.
    """
    array = check_tokens("targets", targets, vocab_size)
    if array.shape != tokens_shape:
        raise ValueError(f"targets have shape {array.shape}, tokens {tokens_shape}: they must be the same")
    return array


def check_state(config: RHNConfig, state: Sequence[Any], batch_size: int) -> None:
    """Raise ValueError unless `state`, of arrays of any framework, is (B, H) per layer."""
    shapes = [tuple(s.shape) for s in state]
    needed = [(batch_size, config.hidden_size)] * config.num_layers
    if shapes != needed:
        raise ValueError(f"state has shapes {shapes}, needed are {needed}")


def steps_per_slice(length: int, batch_size: int, least_rows: int) -> int:
    """Time steps of the slices of a window (T, B) that a backward treats one after the other.

    They are the fewest that make up `least_rows` rows (time x batch) or more, and of which the window has a whole
    number, so that a loop over slices is one program; all, if there are none.
    """
    whole = (steps for steps in range(1, length) if length % steps == 0 and steps * batch_size >= least_rows)
    return next(whole, length)
