"""Errors are measured against the largest entry, and no tolerance is wider than the specification allows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rhn.compare import LIMIT, compare, tensor_error
from rhn_conformance.case import DTYPES
from rhn_conformance.checks import CHECKS
from rhn_conformance.tolerances import AUTHORS_TOLERANCE, TOLERANCE


def test_no_tolerance_exceeds_the_specification() -> None:
    assert LIMIT == {"float64": 1e-10, "float32": 2e-5}  # SPEC.md 6.1
    for dtype, limit in LIMIT.items():
        assert {check.name for check in CHECKS} <= TOLERANCE[dtype].keys()
        assert max(AUTHORS_TOLERANCE[dtype], *TOLERANCE[dtype].values()) <= limit
        assert TOLERANCE[dtype]["parameters"] == 0.0


def test_error_is_relative_to_the_largest_entry() -> None:
    error = tensor_error("w", [4.0, 1e-9], [4.0, 0.0], "float32", 1e-6)
    assert error.max_abs == 1e-9
    assert error.max_rel == 1e-9 / 4
    assert error.index == (1,)
    assert error.within_tolerance


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_rounding_is_one_ulp(dtype: str) -> None:
    one = np.dtype(dtype).type(1)
    assert tensor_error("w", np.nextafter(one, 2 * one), one, dtype, 0.0).ulps == 1.0


def test_zero_where_all_is_zero() -> None:
    error = tensor_error("w", np.zeros(3), np.zeros(3), "float64", 0.0)
    assert (error.max_abs, error.ulps, error.within_tolerance) == (0.0, 0.0, True)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_finite_is_infinitely_wrong(value: float) -> None:
    error = tensor_error("w", [1.0, value], [1.0, 2.0], "float64", 1e-10)
    assert error.max_rel == error.ulps == math.inf
    assert not error.within_tolerance


def test_the_same_infinity_is_right() -> None:
    assert tensor_error("w", [math.inf, 1.0], [math.inf, 1.0], "float64", 0.0).within_tolerance


def test_message_names_tensor_place_and_error() -> None:
    message = str(tensor_error("bias", [[1.0, 2.5]], [[1.0, 2.0]], "float64", 1e-10))
    assert message.startswith("bias[0, 1] is 2.5, expected 2: off by 2.50e-01 of the largest entry")


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        ({}, "missing tensors: w; not expected: none"),
        ({"w": np.zeros(2), "x": np.zeros(2)}, "missing tensors: none; not expected: x"),
        ({"w": np.zeros(3)}, r"w has shape \(3,\), expected \(2,\)"),
    ],
)
def test_other_tensors_or_shapes_are_refused(actual: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(actual, {"w": np.zeros(2)}, "float64", 1e-10)
