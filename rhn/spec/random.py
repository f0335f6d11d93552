"""Random numbers that depend on their purpose, never on the order in which they are drawn.

A counter-based generator (Philox 4x64) has the key (seed, purpose) and starts at (step, index). Only its raw bits are
used, because NumPy guarantees them across versions and machines. It does not guarantee its distributions.
"""

from __future__ import annotations

import enum
import math
import numbers

import numpy as np
from numpy.typing import NDArray


class Purpose(enum.IntEnum):
    """The purpose of a draw. The numbers are part of the specification: changing one changes every run."""

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
    """Uniform numbers in [0, 1), as a float64 array of shape `shape`: a pure function of the arguments.

    Args:
        seed: the seed of the run, 0 <= seed < 2**64.
        purpose: separates the streams of one seed.
        shape: shape of the result.
        step: number of the training step or of the sample; at least 0.
        index: separates draws with the same purpose and step, such as those of different layers; at least 0.

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
    """Standard normal numbers, as a float64 array of shape `shape`; arguments and errors are those of `uniform`.

    They are computed by the Box-Muller transform, sqrt(-2 log(1 - u)) cos(2 pi v), from twice as many uniform numbers:
    u is the first half of them, v the second.
    """
    u, v = uniform(seed, purpose, (2, *shape), step=step, index=index)
    return np.sqrt(-2.0 * np.log1p(-u)) * np.cos(2.0 * np.pi * v)
