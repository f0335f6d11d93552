"""A baseline that only counts: an order-2 (trigram) model, which a trained model should beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LARGEST_TABLE = 50_000_000  # entries; with more (words), almost all probability would come from smoothing


def order_two_nats(train: NDArray[np.integer], test: NDArray[np.integer], vocab_size: int) -> float | None:
    """Mean cross-entropy in nats on `test` (m,) of p(c | a b) = (n(abc) + 1) / (n(ab) + V), counted on `train` (n,).

    Returns None if the table of V**3 counts would be too large.
    """
    if vocab_size**3 > _LARGEST_TABLE:
        return None
    counts = np.bincount(_trigrams(train, vocab_size), minlength=vocab_size**3).reshape(-1, vocab_size)  # (V*V, V)
    contexts, symbols = np.divmod(_trigrams(test, vocab_size), vocab_size)  # (m - 2,) each
    probabilities = (counts[contexts, symbols] + 1) / (counts.sum(axis=1)[contexts] + vocab_size)
    return float(-np.log(probabilities).mean())


def _trigrams(tokens: NDArray[np.integer], vocab_size: int) -> NDArray[np.int64]:
    """(n - 2,) number of each run of three tokens."""
    t = tokens.astype(np.int64)
    return (t[:-2] * vocab_size + t[1:-1]) * vocab_size + t[2:]
