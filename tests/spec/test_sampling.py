"""SPEC.md 4.13, clause by clause."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rhn.sampling import sample_tokens
from rhn.spec.random import Purpose, uniform

VOCAB_SIZE = 7
LOGITS = np.random.default_rng(3).normal(size=(VOCAB_SIZE, VOCAB_SIZE)).astype(np.float32)  # of the next token


def step(token: int, state: Any) -> tuple[NDArray[np.float32], int]:
    """Logits that depend on the token and on how many tokens were read."""
    tokens_read = 0 if state is None else state
    return np.roll(LOGITS[token], tokens_read), tokens_read + 1


@pytest.mark.parametrize("top_k", [None, 1, 3])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_those_of_the_clause(temperature: float, top_k: int | None) -> None:
    prompt, length, seed = [2, 5], 20, 11
    sampled = list(sample_tokens(step, prompt, length, temperature=temperature, top_k=top_k, seed=seed))

    text = list(prompt)
    for u in uniform(seed, Purpose.GENERATION, (length,)):
        logits = np.roll(LOGITS[text[-1]], len(text) - 1).astype(np.float64)
        p = np.exp(logits / temperature)
        if top_k is not None:
            p[np.argsort(p)[: VOCAB_SIZE - top_k]] = 0.0
        text.append(next(k for k in range(VOCAB_SIZE) if p[: k + 1].sum() > u * p.sum()))
    assert sampled == text[len(prompt) :]


def test_a_longer_text_begins_with_the_shorter_one() -> None:
    texts = [list(sample_tokens(step, [1], length, seed=5)) for length in (8, 30)]
    assert texts[1][:8] == texts[0]
