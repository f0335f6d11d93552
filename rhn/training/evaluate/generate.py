"""Text from a model, one token at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rhn.backend import Model
from rhn.spec.random import Purpose, uniform


def generate(
    model: Model,
    prompt: NDArray[np.integer],
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> Iterator[int]:
    """Yield `length` tokens that continue `prompt`, drawn from the model's distribution.

    Args:
        model: to draw from.
        prompt: (n,) at least one token, read first.
        length: number of tokens to draw, at least 1.
        temperature: divides the logits; towards 0 the likeliest token always wins.
        top_k: draw only from the k likeliest tokens; None is all.
        seed: of the draws, which depend on nothing else.

    Raises:
        ValueError: an argument is outside of what is accepted.
    """
    if len(prompt) == 0:
        raise ValueError("prompt='' is not accepted: expected at least one token")
    if not temperature > 0:
        raise ValueError(f"temperature={temperature!r} is not accepted: expected a number above 0")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k!r} is not accepted: expected an integer of at least 1, or None")
    draws = uniform(seed, Purpose.GENERATION, (length,))
    state = None
    for token in prompt:  # one at a time, so that a backend that compiles per shape compiles only once
        logits, state = model.forward(np.array([[token]]), state)  # (1, 1, V)
    for draw in draws:
        scaled = logits[0, 0].astype(np.float64) / temperature  # (V,)
        if top_k is not None and top_k < len(scaled):
            scaled[scaled < np.sort(scaled)[-top_k]] = -np.inf
        cumulative = np.cumsum(np.exp(scaled - scaled.max()))  # (V,)
        token = int(np.searchsorted(cumulative, draw * cumulative[-1], side="right"))
        yield token
        logits, state = model.forward(np.array([[token]]), state)
