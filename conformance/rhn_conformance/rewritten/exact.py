"""The reference in decimal arithmetic: its results do not depend on the libm or BLAS of a machine.

`decimal` rounds every operation correctly, `exp` and `ln` included. A result is rounded to float64 only once, at the
end, so it is the same on every machine, bit for bit. The frozen vectors hold these results. The code is the
reference's own, with arrays of `Exact` numbers in place of float64.
"""

from __future__ import annotations

import decimal
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rhn.backend import Model
from rhn.spec.config import RHNConfig
from rhn_conformance.case import Answers, Inputs, Tensors
from rhn_conformance.checks import checks_of
from rhn_conformance.rewritten.rewrite import rewritten_reference

_CONTEXT = decimal.Context(prec=50, Emin=-99_999, Emax=99_999)  # digits; far more than cancellation can lose

_FLAT = 100  # beyond this, tanh is 1 to 86 digits


class Exact:
    """A real number of 50 digits with the operations that the reference needs, also with floats, which are exact."""

    __slots__ = ("value",)

    def __init__(self, value: Decimal) -> None:
        self.value = value

    def __neg__(self) -> Exact:
        return Exact(_CONTEXT.minus(self.value))

    def __add__(self, other: Any) -> Exact:
        return Exact(_CONTEXT.add(self.value, _decimal(other)))

    def __sub__(self, other: Any) -> Exact:
        return Exact(_CONTEXT.subtract(self.value, _decimal(other)))

    def __rsub__(self, other: Any) -> Exact:
        return Exact(_CONTEXT.subtract(_decimal(other), self.value))

    def __mul__(self, other: Any) -> Exact:
        if isinstance(other, np.ndarray):
            return NotImplemented  # NumPy then multiplies entry by entry
        return Exact(_CONTEXT.multiply(self.value, _decimal(other)))

    def __truediv__(self, other: Any) -> Exact:
        return Exact(_CONTEXT.divide(self.value, _decimal(other)))

    def __rtruediv__(self, other: Any) -> Exact:
        return Exact(_CONTEXT.divide(_decimal(other), self.value))

    __radd__ = __add__
    __rmul__ = __mul__

    def __gt__(self, other: Any) -> bool:
        return self.value > _decimal(other)

    def __ge__(self, other: Any) -> bool:
        return self.value >= _decimal(other)

    def __lt__(self, other: Any) -> bool:
        return self.value < _decimal(other)

    def __float__(self) -> float:
        return float(self.value)  # correctly rounded

    # NumPy's elementwise functions call these on arrays of objects.

    def exp(self) -> Exact:
        return Exact(_CONTEXT.exp(self.value))

    def log(self) -> Exact:
        return Exact(_CONTEXT.ln(self.value))

    def sqrt(self) -> Exact:
        return Exact(_CONTEXT.sqrt(self.value))

    def tanh(self) -> Exact:
        if abs(self.value) > _FLAT:
            return Exact(Decimal(1).copy_sign(self.value))
        growth = Exact(_CONTEXT.multiply(self.value, Decimal(2))).exp()
        return (growth - 1) / (growth + 1)


def exact_answers(inputs: Inputs) -> Answers:
    """The specification's answers, computed to 50 digits and rounded to float64 once."""
    model = exact_model(inputs.config, inputs.parameters)
    return {check.name: _rounded(check.ask(model, inputs)) for check in checks_of(inputs)}


def exact_model(config: RHNConfig, parameters: Mapping[str, NDArray]) -> Model:
    """The reference with these parameters; losses, norms and states are `Exact` numbers, or arrays of them."""
    backend = rewritten_reference(
        "exact",
        edits=[
            ("return float(np.sqrt(", "return (np.sqrt("),
            (
                "np.array(parameters[name], np.float64) for name in parameter_shapes",
                "np.array(parameters[name], object) for name in parameter_shapes",
            ),
            # A state goes to the next window as it is.
            ("return [s.astype(self._dtype) for s in state]", "return list(state)"),
        ],
        everywhere=[("dtype=np.float64", "dtype=object")],
    )
    return backend.build(config, {name: _exact(value) for name, value in parameters.items()}, "float64")


def _exact(array: NDArray) -> NDArray[Any]:
    return np.vectorize(lambda number: Exact(Decimal(float(number))), otypes=[object])(array)


def _rounded(tensors: Tensors) -> Tensors:
    return {name: np.asarray(value, dtype=np.float64) for name, value in tensors.items()}


def _decimal(number: Any) -> Decimal:
    return number.value if isinstance(number, Exact) else Decimal(float(number))
