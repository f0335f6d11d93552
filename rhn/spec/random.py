"""Random numbers that depend on what they are for, never on the order in which they are asked for.

A counter-based generator (Philox 4x64) is keyed by (seed, purpose) and started at (step, index). Only its raw bits
are used: NumPy guarantees them across versions and machines, which it does not for its distributions.
"""

from __future__ import annotations

import enum
import math
import numbers

import numpy as np
from numpy.typing import NDArray


class Purpose(enum.IntEnum):
    """What a draw is for. The numbers are part of the specification: changing one changes every run."""

    PARAMETERS = 1
    EMBEDDING_MASK = 2
    INPUT_MASK = 3
    STATE_MASK = 4
    OUTPUT_MASK = 5
    GENERATION = 6
    MONTE_CARLO = 7
    UPDATE_MASK = 8
    CARRIED_STATE = 9
    WINDOW_LENGTH = 10


def uniform(
    seed: int, purpose: Purpose, shape: tuple[int, ...], *, step: int = 0, index: int = 0
) -> NDArray[np.float64]:
    """Numbers from [0, 1), float64 of shape `shape`, that are a pure function of the arguments.

    Args:
        seed: the run's seed, 0 <= seed < 2**64.
        purpose: separates the streams of one seed.
        shape: of the result.
        step: training step, or whatever else counts time; at least 0.
        index: separates draws of one purpose and step, such as layers; at least 0.

    Raises:
        ValueError: seed, step or index is not an integer in [0, 2**64).
    """
    for name, value in (("seed", seed), ("step", step), ("index", index)):
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not 0 <= value < 2**64:
            raise ValueError(f"{name}={value!r} is not accepted: expected an integer from 0 to 2**64 - 1")
    key = np.array([seed, purpose], dtype=np.uint64)
    counter = np.array([0, index, step, 0], dtype=np.uint64)
    bits = np.random.Philox(key=key, counter=counter).random_raw(math.prod(shape))
    return ((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)


def normal(
    seed: int, purpose: Purpose, shape: tuple[int, ...], *, step: int = 0, index: int = 0
) -> NDArray[np.float64]:
    """Numbers of the standard normal distribution, float64 of shape `shape`; arguments and errors as of `uniform`.

    Those of Box and Muller, sqrt(-2 log(1 - u)) cos(2 pi v): u is the first half of the uniform numbers, v the second.
    """
    u, v = uniform(seed, purpose, (2, *shape), step=step, index=index)
    return np.sqrt(-2.0 * np.log1p(-u)) * np.cos(2.0 * np.pi * v)
