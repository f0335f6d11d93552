"""The score of a model on a stream of tokens: perplexity or bits per symbol, with its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNITS = {"word": "perplexity", "char": "bits per character", "byte": "bits per byte"}

BLOCK = 100  # tokens of a block, from whose spread a standard error is computed: longer blocks are nearly independent


@dataclass(frozen=True)
class Score:
    """Cross-entropy of a model over a stream.

    Attributes:
        nats: mean negative log-likelihood per token, in nats.
        standard_error: standard error of `nats`, in nats, from the spread between windows; nan if there is only one.
        tokens: number of scored tokens.
        level: what a token is: "word", "char" or "byte".
    """

    nats: float
    standard_error: float
    tokens: int
    level: str

    @property
    def value(self) -> float:
        """Perplexity for words, bits per token for characters and bytes."""
        return in_units(self.nats, self.level)

    def __str__(self) -> str:
        spread = self.standard_error * (self.value if self.level == "word" else 1 / math.log(2))
        error = "" if math.isnan(spread) else f" ± {spread:.2g}"
        return f"{UNITS[self.level]} {self.value:.4g}{error} over {self.tokens:,} tokens"


def in_units(nats: float, level: str) -> float:
    """Nats per token, converted to perplexity (words) or bits per symbol (characters, bytes)."""
    if level != "word":
        return nats / math.log(2)
    return math.exp(nats) if nats < 700 else math.inf  # an untrained or diverged model must not crash the report


def score_of_windows(nll: NDArray[np.float64], counts: NDArray[np.integer], level: str) -> Score:
    """The score of a stream from the summed negative log-likelihoods (n,) and token counts (n,) of its windows."""
    tokens = int(counts.sum())
    nats = float(nll.sum() / tokens)
    residual = nll - nats * counts  # a ratio estimator: windows may differ in length
    n = len(nll)
    error = math.sqrt(n / (n - 1) * float((residual**2).sum())) / tokens if n > 1 else math.nan
    return Score(nats, error, tokens, level)


def score_of_pieces(nll: NDArray[np.float64], counts: NDArray[np.integer], level: str) -> Score:
    """Like `score_of_windows`, for windows so short that neighbouring windows depend on each other: the standard error
    comes from the spread between blocks of about `BLOCK` tokens."""
    block = (np.cumsum(counts) - 1) // BLOCK  # (n,) which block a window ends in
    block = np.unique(block, return_inverse=True)[1]  # (n,) without gaps, should a window be longer than a block
    blocks = int(block[-1]) + 1
    nll_of_block, count_of_block = np.zeros(blocks), np.zeros(blocks, dtype=np.int64)
    np.add.at(nll_of_block, block, nll)
    np.add.at(count_of_block, block, counts)
    return score_of_windows(nll_of_block, count_of_block, level)
