"""Decimal arithmetic, and how near the reference comes to it."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from rhn.compare import compare
from rhn_conformance.cases.numbers import make_inputs
from rhn_conformance.cases.synthetic import DESCRIPTIONS, reference_answers
from rhn_conformance.rewritten.exact import Exact, exact_answers

# Measured over all cases: 35 ULP at worst (gradients that nearly cancel), mostly below 5.
REFERENCE_ULPS = 100
# All kinds of operations in a second or two; the frozen vectors cover more.
CASES_BY_NAME = {
    case.name: case for case in DESCRIPTIONS if case.name in ("plain", "uncoupled", "relu", "clipping-with-decay")
}


@pytest.mark.parametrize("name", CASES_BY_NAME)
def test_reference_is_exact_to_a_few_roundings(name: str) -> None:
    case = CASES_BY_NAME[name]
    answers = reference_answers(case)
    for check, exact in exact_answers(make_inputs(case)).items():
        assert max(error.ulps for error in compare(answers[check], exact, "float64", 0.0)) < REFERENCE_ULPS


@pytest.mark.parametrize("value", [0.0, 1e-30, -0.3, 2.5, -40.0, 5000.0])
def test_functions(value: float) -> None:
    number = Exact(Decimal(value))
    assert math.isclose(float(number.tanh()), math.tanh(value), rel_tol=1e-15)
    assert float(number.exp().log()) == pytest.approx(value, rel=1e-15, abs=1e-45)
    assert float((number * number).sqrt()) == abs(value)


def test_arithmetic_with_floats_is_exact() -> None:
    third = 1 / Exact(Decimal(3))
    assert float(3 * third) == 1.0
    assert (1 - third) > third
    assert float(-(0.1 + third - third)) == -0.1
