"""Measures how far two tensors are apart.

An error is always measured against the largest entry of the expected tensor, because entries that nearly cancel are
not accurate in any implementation. `ulps` is the largest difference in units in the last place *at that largest entry*.
So it counts roundings and can be compared across dtypes; it is not an entry-by-entry distance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# SPEC.md 6.1. No tolerance may be wider.
LIMIT = {"float64": 1e-10, "float32": 2e-5}

Tensors = Mapping[str, ArrayLike]


@dataclass(frozen=True)
class TensorError:
    """Difference between a tensor and the expected tensor.

    Attributes:
        tensor: name of the tensor.
        max_abs: largest absolute difference; infinite if an entry is not finite where the expected entry is finite.
        max_rel: `max_abs` divided by the largest absolute entry of the expected tensor (by 1 if all are 0).
        ulps: `max_abs` in units in the last place of the dtype at that largest entry.
        index: index of the worst entry.
        actual: value of the worst entry.
        expected: expected value of the worst entry.
        tolerance: largest accepted value of `max_rel`.
    """

    tensor: str
    max_abs: float
    max_rel: float
    ulps: float
    index: tuple[int, ...]
    actual: float
    expected: float
    tolerance: float

    @property
    def within_tolerance(self) -> bool:
        return self.max_rel <= self.tolerance

    def __str__(self) -> str:
        return (
            f"{self.tensor}{list(self.index) or ''} is {self.actual:.9g}, expected {self.expected:.9g}: off by"
            f" {self.max_rel:.2e} of the largest entry ({self.ulps:.3g} ULP), tolerance {self.tolerance:.2e}"
        )


def tensor_error(tensor: str, actual: ArrayLike, expected: ArrayLike, dtype: str, tolerance: float) -> TensorError:
    """Compare one tensor, whose arithmetic was done in `dtype`.

    Raises:
        ValueError: the shapes differ.
    """
    a, e = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if a.shape != e.shape:
        raise ValueError(f"{tensor} has shape {a.shape}, expected {e.shape}")
    difference = _difference(a, e)
    index = np.unravel_index(np.argmax(difference), a.shape)
    max_abs = float(difference[index])
    largest = float(np.abs(e[np.isfinite(e)]).max(initial=0.0)) or 1.0
    return TensorError(
        tensor=tensor,
        max_abs=max_abs,
        max_rel=max_abs / largest,
        ulps=max_abs / unit_in_last_place(largest, dtype),
        index=tuple(int(i) for i in index),
        actual=float(a[index]),
        expected=float(e[index]),
        tolerance=tolerance,
    )


def compare(actual: Tensors, expected: Tensors, dtype: str, tolerance: float) -> list[TensorError]:
    """Errors of all tensors of one check, in the order of `expected`.

    Args:
        actual: the answers of a backend.
        expected: the expected answers.
        dtype: dtype of the backend's arithmetic.
        tolerance: relative to the largest entry of each tensor.

    Raises:
        ValueError: a tensor is missing, unexpected, or has the wrong shape.
    """
    if set(actual) != set(expected):
        missing, unexpected = sorted(set(expected) - set(actual)), sorted(set(actual) - set(expected))
        raise ValueError(
            f"missing tensors: {', '.join(missing) or 'none'}; not expected: {', '.join(unexpected) or 'none'}"
        )
    return [tensor_error(name, actual[name], e, dtype, tolerance) for name, e in expected.items()]


def unit_in_last_place(value: float, dtype: str) -> float:
    """Distance from |value| to the next larger number of `dtype`."""
    return float(np.spacing(np.dtype(dtype).type(abs(value))))


def _difference(actual: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Absolute difference; 0 where both are the same non-finite value, infinite where only one is finite."""
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        difference = np.abs(actual - expected)
    return np.where(same, 0.0, np.where(np.isnan(difference), math.inf, difference))
