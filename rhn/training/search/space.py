"""The search space: the distributions of the options that are searched, and random draws from them. Examples:

learning_rate=log(1e-3, 5e-3)
drop_input=uniform(0.4, 0.75)
activation=choice(tanh, relu)
hidden_size,embedding_size=choice((586, 586), (739, 370))
"""

from __future__ import annotations

import ast
import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rhn.spec.arguments import is_number, refusal
from rhn.training.options import ALIASES, OPTIONS, OptionError, check_value
from rhn.training.terminal.read_words import nearest

EXPECTED = "uniform(LOW, HIGH), log(LOW, HIGH) or choice(VALUE, VALUE, ...)"
_FORM = re.compile(r"\w+\s*\(.*\)", re.DOTALL)
# The other options choose the data, the device and the length of a run: scores could not be compared.
_SEARCHED_GROUPS = ("model", "training", "dropout")


@dataclass(frozen=True)
class Dimension:
    """One dimension of the space: the distribution of one option, or of several that are chosen together.

    Attributes:
        names: names of the options.
        form: "uniform", "log" or "choice".
        values: the lowest and the highest value, both included. For a choice all values: tuples if there are several
            options.
        is_integer: whether numbers are rounded to integers.
    """

    names: tuple[str, ...]
    form: str
    values: tuple[Any, ...]
    is_integer: bool = False

    @property
    def key(self) -> str:
        """The names, joined by commas."""
        return ",".join(self.names)

    def __str__(self) -> str:
        return f"{self.form}({', '.join(map(repr, self.values))})"

    def at(self, quantile: float) -> Any:
        """The value at `quantile`, in [0, 1), of the distribution."""
        if self.form == "choice":
            return self.values[int(quantile * len(self.values))]
        low, high = self._bounds()
        value = math.exp(low + quantile * (high - low)) if self.form == "log" else low + quantile * (high - low)
        value = round(value) if self.is_integer else float(f"{value:.4g}")  # so that a person can type it
        return min(max(value, self.values[0]), self.values[1])

    def place(self, value: Any) -> float:
        """The position of `value` on an axis from 0 (lowest) to 1 (highest); choices are equally spaced."""
        if self.form == "choice":
            return self.labels.index(self.label(value)) / (len(self.values) - 1)
        low, high = self.values
        if self.form == "log":
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    def label(self, value: Any) -> str:
        """`value` as a short text; different choices have different texts."""
        if len(self.names) > 1:
            return ", ".join(map(str, value))
        return f"{value:.4g}" if isinstance(value, float) and self.form != "choice" else str(value)

    @property
    def labels(self) -> list[str]:
        """The labels of `values`."""
        return [self.label(value) for value in self.values]

    def options(self, value: Any) -> dict[str, Any]:
        """The options that `value` stands for, by name."""
        return dict(zip(self.names, value, strict=True)) if len(self.names) > 1 else {self.names[0]: value}

    def _bounds(self) -> tuple[float, float]:
        """The range of what is drawn uniformly. Each integer stands for the range from 0.5 below it to 0.5 above."""
        low, high = self.values
        if self.is_integer:
            low, high = low - 0.5, high + 0.5
        return (math.log(low), math.log(high)) if self.form == "log" else (low, high)


@dataclass(frozen=True)
class Space:
    """The dimensions of a search. A draw is a dict with one value for the key of each dimension."""

    dimensions: tuple[Dimension, ...]

    def draw(self, seed: int, number: int) -> dict[str, Any]:
        """The random draw of trial `number`, a pure function of seed, number and key: processes need not coordinate."""
        return {d.key: d.at(random.Random(f"{seed} {number} {d.key}").random()) for d in self.dimensions}

    def options(self, draw: Mapping[str, Any]) -> dict[str, Any]:
        """The options that a draw stands for, by name."""
        return {name: value for d in self.dimensions for name, value in d.options(draw[d.key]).items()}


def is_form(text: Any) -> bool:
    """Whether `text` looks like a distribution: a word with something in parentheses."""
    return isinstance(text, str) and _FORM.fullmatch(text.strip()) is not None


def read_dimension(key: str, text: Any) -> Dimension:
    """Read the dimension of the options `key`, joined by commas, with the distribution `text`.

    Raises:
        OptionError: an option is unknown or cannot be searched, or the distribution or a value in it is not accepted.
    """
    names = tuple(ALIASES.get(name.strip(), name.strip()) for name in key.split(","))
    for name in names:
        if name not in OPTIONS:
            raise OptionError(f"option {name!r} is not known{nearest(name, [*OPTIONS, *ALIASES])}")
        if not may_be_searched(name):
            raise OptionError(
                f"{name}={text!r} is not accepted: expected a single value; only options of the groups model,"
                " training and dropout, and the seed, can be searched"
            )
    if len(set(names)) < len(names):
        raise OptionError(f"{key}={text!r} is not accepted: expected each option once")
    form, values = _parse(key, text)
    if form == "choice":
        _check_choices(names, key, text, values)
        return Dimension(names, form, values)
    if len(names) > 1:
        raise _refusal(key, text, f"choice((VALUE, ...), ...) with a value for each of {', '.join(names)}")
    if len(values) != 2 or not all(is_number(value) for value in values) or not values[0] < values[1]:
        raise _refusal(key, text, f"{form}(LOW, HIGH), two numbers")
    option, (low, high) = OPTIONS[names[0]], values
    check_value(option, low)
    check_value(option, high)
    if form == "log" and low <= 0:
        raise _refusal(key, text, "a LOW above 0")
    try:
        check_value(option, low + (high - low) / math.pi)
    except OptionError:
        return Dimension(names, form, values, is_integer=True)
    return Dimension(names, form, values)


def may_be_searched(name: str) -> bool:
    """Whether the option `name` can have a dimension."""
    return OPTIONS[name].group in _SEARCHED_GROUPS or name == "seed"


def _parse(key: str, text: Any) -> tuple[str, tuple[Any, ...]]:
    """The form and the values of `text`. A bare word among the values is a string, as on the command line."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)) or call.keywords:
            raise ValueError(text)
        values = tuple(arg.id if isinstance(arg, ast.Name) else ast.literal_eval(arg) for arg in call.args)
    except (AttributeError, ValueError, SyntaxError, RecursionError, MemoryError):
        raise _refusal(key, text, EXPECTED) from None
    if call.func.id not in ("uniform", "log", "choice"):
        raise _refusal(key, text, EXPECTED)
    return call.func.id, values


def _check_choices(names: tuple[str, ...], key: str, text: str, choices: tuple[Any, ...]) -> None:
    if len({repr(choice) for choice in choices}) < max(len(choices), 2):
        raise _refusal(key, text, "at least two choices, all different")
    for choice in choices:
        values = choice if len(names) > 1 else (choice,)
        if not isinstance(values, tuple) or len(values) != len(names):
            raise _refusal(key, text, f"choice((VALUE, ...), ...) with a value for each of {', '.join(names)}")
        for name, value in zip(names, values, strict=True):
            check_value(OPTIONS[name], value)


def _refusal(key: str, text: Any, expected: str) -> OptionError:
    return OptionError(str(refusal(key, text, expected)))
