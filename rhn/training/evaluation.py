"""How good a model is on a stream of tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rhn.backend import Model
from rhn_datasets import Corpus, windows

UNITS = {"word": "perplexity", "char": "bits per character", "byte": "bits per byte"}


@dataclass(frozen=True)
class Score:
    """Cross-entropy of a model over a stream.

    Attributes:
        nats: mean negative log-likelihood per token, in nats.
        standard_error: of `nats`, in nats, from the spread between windows; nan if there is only one.
        tokens: how many were scored.
        level: "word", "char" or "byte": what a token is.
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
    """Nats per token as what the field reports: perplexity (words) or bits (characters, bytes)."""
    if level != "word":
        return nats / math.log(2)
    return math.exp(nats) if nats < 700 else math.inf  # an untrained or diverged model must not crash the report


def evaluate(
    model: Model,
    tokens: NDArray[np.integer],
    level: str,
    *,
    batch_size: int = 1,
    bptt_length: int = 100,
    drop_last: bool = False,
    progress: Callable[[int], Any] = lambda tokens: None,
) -> Score:
    """Score `tokens` without dropout, the state handed from window to window.

    Args:
        model: to be scored; it is not changed.
        tokens: (n,) the stream.
        level: "word", "char" or "byte".
        batch_size: 1 scores every token but the first in its full context; B cuts the stream into B rows first.
        bptt_length: window length; the result does not depend on it, but for rounding.
        drop_last: leave out a last window shorter than `bptt_length`, as the authors' programs do.
        progress: called with the number of tokens scored since the last call.
    """
    cut = windows(tokens, batch_size, bptt_length, drop_last=drop_last)
    state = model.zero_state(batch_size)
    sums, counts = [], []
    for inputs, targets in cut:
        value, state = model.evaluate_step(inputs, targets, state)
        sums.append(value)  # stays on the device: waiting for each would stall it
        counts.append(targets.size)
        progress(targets.size)
    nll = np.array([float(model.to_numpy(value)) for value in sums])  # (windows,)
    return score_of_windows(nll, np.array(counts), level)


def score_of_windows(nll: NDArray[np.float64], counts: NDArray[np.integer], level: str) -> Score:
    """The score of a stream from the summed negative log-likelihoods (n,) and token counts (n,) of its windows."""
    tokens = int(counts.sum())
    nats = float(nll.sum() / tokens)
    residual = nll - nats * counts  # a ratio estimator: windows may differ in length
    n = len(nll)
    error = math.sqrt(n / (n - 1) * float((residual**2).sum())) / tokens if n > 1 else math.nan
    return Score(nats, error, tokens, level)


def score_full_streams(model: Model, corpus: Corpus, show_progress: bool) -> dict[str, Score]:
    """Score the validation and the test part of `corpus` at batch 1, and print the scores."""
    scores = {}
    for name in ("valid", "test"):
        tokens = getattr(corpus, name)
        with tqdm(total=len(tokens) - 1, desc=name, unit=" tokens", leave=False, disable=not show_progress) as bar:
            scores[name] = evaluate(model, tokens, corpus.level, progress=bar.update)
        print(f"  {name} (batch 1): {scores[name]}")
    return scores
