"""Covering arrays: a few rows in which every pair of option values occurs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

Pair = tuple[str, Any, str, Any]


def pairwise(factors: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Rows with one value for each factor, such that any two values of two factors occur together in some row.

    Greedy and deterministic: each row starts from the first pair not yet covered, in the order of `factors`, and each
    further factor takes the value that covers most new pairs with the values chosen so far. Among equal values the
    choice rotates with the row's number, so that no value is preferred throughout.
    """
    uncovered = dict.fromkeys(all_pairs(factors))  # an ordered set
    rows: list[dict[str, Any]] = []
    while uncovered:
        first, first_value, second, second_value = next(iter(uncovered))
        row = {first: first_value, second: second_value}
        for name, values in factors.items():
            if name in row:
                continue
            rotation = len(rows) % len(values)
            candidates = [*values[rotation:], *values[:rotation]]
            gains = [sum(p in uncovered for p in pairs({**row, name: value}, factors)) for value in candidates]
            row[name] = candidates[gains.index(max(gains))]
        row = {name: row[name] for name in factors}
        for pair in pairs(row, factors):
            uncovered.pop(pair, None)
        rows.append(row)
    return rows


def all_pairs(factors: Mapping[str, Sequence[Any]]) -> list[Pair]:
    """Every pair of values of two different factors."""
    return [
        (a, value_a, b, value_b)
        for a, b in combinations(factors, 2)
        for value_a, value_b in product(factors[a], factors[b])
    ]


def pairs(row: Mapping[str, Any], factors: Mapping[str, Sequence[Any]]) -> list[Pair]:
    """The pairs of values that occur in `row`, which may lack factors."""
    present = [name for name in factors if name in row]
    return [(a, row[a], b, row[b]) for a, b in combinations(present, 2)]
