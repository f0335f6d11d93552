"""What an option accepts: each function makes a check that can also say in words what it expects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rhn.spec.arguments import check_choice, check_flag, check_fraction, check_integer, check_number, is_number, refusal

LARGEST_WEIGHT = 1e8  # no training that converges has larger ones


@dataclass(frozen=True)
class Accepted:
    """Values of one option.

    Attributes:
        expected: the accepted values, in words.
        check: called with the option's name and a value; raises ValueError for every other value.
    """

    expected: str
    check: Callable[[str, Any], object]


def integer(least: int = 1, most: int | None = None) -> Accepted:
    """Integers from `least`, up to `most` if that is given."""
    if most is None:
        return Accepted(f"an integer of at least {least}", lambda name, value: check_integer(name, value, least))
    expected = f"an integer from {least} to {'2**64 - 1' if most == 2**64 - 1 else most}"

    def check(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise refusal(name, value, expected)

    return Accepted(expected, check)


def number(*, zero: bool = False) -> Accepted:
    """Finite numbers above 0, or of at least 0."""
    expected = "a number of at least 0" if zero else "a number above 0"
    return Accepted(expected, lambda name, value: check_number(name, value, zero=zero))


def initial_value(*, signed: bool) -> Accepted:
    """Initial values of weights: at most `LARGEST_WEIGHT` in size, and at least 0 unless `signed`."""
    lowest = -LARGEST_WEIGHT if signed else 0.0
    expected = f"a number from {lowest:g} to {LARGEST_WEIGHT:g}"

    def check(name: str, value: Any) -> None:
        if not is_number(value) or not lowest <= value <= LARGEST_WEIGHT:
            raise refusal(name, value, expected)

    return Accepted(expected, check)


def fraction() -> Accepted:
    """Numbers from 0 up to, not including, 1."""
    return Accepted("a number from 0 up to, not including, 1", check_fraction)


def flag() -> Accepted:
    """True or False."""
    return Accepted("True or False", check_flag)


def one_of(*choices: Any) -> Accepted:
    """One of a few values."""
    expected = f"one of {', '.join(map(str, choices))}"

    def check(name: str, value: Any) -> None:
        try:
            check_choice(name, value, choices)
        except ValueError:
            close = get_close_matches(str(value), list(map(str, choices)), n=1)
            raise refusal(name, value, expected + (f" (did you mean {close[0]}?)" if close else "")) from None

    return Accepted(expected, check)


def text(example: str) -> Accepted:
    """Text of at least one symbol."""
    return _text(f"text of at least one symbol, in two kinds of quotes if it could be a number, as in '{example}'")


def path() -> Accepted:
    """The name of a file or folder, which need not exist."""
    return _text("the name of a file or folder, in two kinds of quotes if it could be a number")


def folder_name() -> Accepted:
    """The name of one folder, without a path."""
    expected = "the name of one folder without a /, in two kinds of quotes if it is a number, as in 'run=\"2024\"'"

    def check(name: str, value: Any) -> None:
        if not _is_text(value) or Path(value).name != value or value in (".", ".."):
            raise refusal(name, value, expected)

    return Accepted(expected, check)


def paths() -> Accepted:
    """The name of a file or folder, or the names of three files."""
    one = path()
    expected = "the name of a file or folder, or the names of three files"

    def check(name: str, value: Any) -> None:
        names = value if isinstance(value, list | tuple) else [value]
        if len(names) != (3 if names is value else 1) or not all(_is_text(each) for each in names):
            raise refusal(name, value, one.expected if isinstance(value, str) else expected)

    return Accepted(expected, check)


def either(first: Accepted, *others: Any) -> Accepted:
    """What `first` accepts, or one of `others`."""

    def check(name: str, value: Any) -> None:
        if any(type(value) is type(other) and value == other for other in others):
            return
        try:
            first.check(name, value)
        except ValueError:
            raise refusal(name, value, expected) from None

    expected = f"{first.expected}, or {' or '.join(map(str, others))}"
    return Accepted(expected, check)


def _text(expected: str) -> Accepted:
    def check(name: str, value: Any) -> None:
        if not _is_text(value):
            raise refusal(name, value, expected)

    return Accepted(expected, check)


def _is_text(value: Any) -> bool:
    """Text that every file system and terminal can hold: not empty, no null character, no lone surrogate."""
    return isinstance(value, str) and bool(value) and "\0" not in value and not _has_surrogates(value)


def _has_surrogates(value: str) -> bool:
    return any("\ud800" <= symbol <= "\udfff" for symbol in value)
