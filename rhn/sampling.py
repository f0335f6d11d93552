"""Samples tokens from a language model one by one, for every port's `generate` and the command `generate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rhn.spec.arguments import refusal
from rhn.spec.random import Purpose, uniform

# From a token and the state before it (None at first): logits (V,) of the next token, and the state after the token.
Step = Callable[[int, Any], tuple[NDArray[np.floating], Any]]


def sample_tokens(
    step: Step,
    prompt: Sequence[int] | NDArray[np.integer],
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> Iterator[int]:
    """Yield `length` tokens that continue `prompt`, sampled from the model's distribution (SPEC.md 4.13).

    Args:
        step: reads one token, so that a framework that compiles per shape compiles only once.
        prompt: (n,) at least one token, read first.
        length: number of tokens to sample, at least 1.
        temperature: divides the logits; as it goes to 0, the most likely token is always chosen.
        top_k: sample only from the k most likely tokens; None: from all.
        seed: seed of the random numbers, which depend on nothing else (SPEC.md 4.13).

    Raises:
        ValueError: an argument is outside of what is accepted.
    """
    if len(prompt) == 0:
        raise refusal("prompt", "", "at least one token")
    if not temperature > 0:
        raise refusal("temperature", temperature, "a number above 0")
    if top_k is not None and top_k < 1:
        raise refusal("top_k", top_k, "an integer of at least 1, or None")
    draws = uniform(seed, Purpose.GENERATION, (length,))
    state = None
    for token in prompt:
        logits, state = step(int(token), state)  # (V,)
    for draw in draws:
        scaled = logits.astype(np.float64) / temperature  # (V,)
        if top_k is not None and top_k < len(scaled):
            scaled[scaled < np.sort(scaled)[-top_k]] = -np.inf
        cumulative = np.cumsum(np.exp(scaled - scaled.max()))  # (V,)
        token = int(np.searchsorted(cumulative, draw * cumulative[-1], side="right"))
        yield token
        logits, state = step(token, state)
