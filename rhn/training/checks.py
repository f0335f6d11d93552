"""Checks of options before any work is done: each raises an OptionError of one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rhn.training.options import OptionError


def require_integer(name: str, value: Any, least: int) -> None:
    """Raise OptionError unless `value` is an integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise OptionError(f"{name}={value!r} is not accepted: expected an integer of at least {least}")


def require_number(name: str, value: Any, *, zero: bool) -> None:
    """Raise OptionError unless `value` is a finite number above 0, or 0 itself where `zero` allows it."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value < 0 or (value == 0 and not zero):
        accepted = "of at least 0" if zero else "above 0"
        raise OptionError(f"{name}={value!r} is not accepted: expected a number {accepted}")


def require_one_of(name: str, value: Any, accepted: Sequence[Any]) -> None:
    """Raise OptionError unless `value` is one of `accepted`, of the same type."""
    if not any(value == choice and type(value) is type(choice) for choice in accepted):
        raise OptionError(
            f"{name}={value!r} is not accepted: expected one of {', '.join(str(choice) for choice in accepted)}"
        )
