"""How good a model is on a stream of tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rhn.backend import Model, State
from rhn.spec.reference import cross_entropy
from rhn.training.checks import require_integer, require_number, require_one_of
from rhn.training.score import Score, score_of_windows
from rhn_datasets import Corpus, windows

FULL_WINDOW = 100  # of the evaluation of a full stream, which does not depend on it


@dataclass(frozen=True)
class EvaluationOptions:
    """How a stream is scored; the names are those of the command line.

    Args:
        evaluation: "full": at batch 1, every token but the first in its full context, whatever the other options say;
            "authors_batched": `batch_size` rows, windows of `bptt_length`, tails dropped, as the authors' programs
            choose their checkpoint.
        temperature: divides the logits, above 0.
        batch_size: of "authors_batched".
        bptt_length: of "authors_batched".

    Raises:
        OptionError: an option has a value outside of what is accepted.
    """

    evaluation: str = "full"
    temperature: float = 1.0
    batch_size: int = 1
    bptt_length: int = FULL_WINDOW

    def __post_init__(self) -> None:
        require_one_of("evaluation", self.evaluation, ("full", "authors_batched"))
        require_number("temperature", self.temperature, zero=False)
        require_integer("batch_size", self.batch_size, 1)
        require_integer("bptt_length", self.bptt_length, 1)

    @property
    def arguments(self) -> dict[str, Any]:
        """What `evaluate` is to be called with."""
        if self.evaluation == "full":
            return {"batch_size": 1, "bptt_length": FULL_WINDOW, "temperature": self.temperature}
        return {
            "batch_size": self.batch_size,
            "bptt_length": self.bptt_length,
            "drop_last": True,
            "temperature": self.temperature,
        }

    def __str__(self) -> str:
        way = "batch 1"
        if self.evaluation == "authors_batched":
            way = f"the authors' batched way: batch {self.batch_size}, windows of {self.bptt_length}, tails dropped"
        return way if self.temperature == 1.0 else f"{way}; temperature {self.temperature:g}"


def evaluate(
    model: Model,
    tokens: NDArray[np.integer],
    level: str,
    *,
    batch_size: int = 1,
    bptt_length: int = FULL_WINDOW,
    drop_last: bool = False,
    temperature: float = 1.0,
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
        temperature: divides the logits. Other than 1 is slower: the logits of every window come to NumPy.
        progress: called with the number of tokens scored since the last call.
    """
    cut = windows(tokens, batch_size, bptt_length, drop_last=drop_last)
    step: Callable[..., tuple[Any, Any]]
    read: Callable[[Any], Any]
    if temperature == 1.0:
        step, read = model.evaluate_step, model.to_numpy
    else:
        step, read = partial(_step_at_temperature, model, temperature), float
    state: State = model.zero_state(batch_size)
    sums, counts = [], []
    for inputs, targets in cut:
        value, state = step(inputs, targets, state)
        sums.append(value)  # stays on the device: waiting for each would stall it
        counts.append(targets.size)
        progress(targets.size)
    nll = np.array([float(read(value)) for value in sums])  # (windows,)
    return score_of_windows(nll, np.array(counts), level)


def _step_at_temperature(
    model: Model, temperature: float, inputs: NDArray[np.integer], targets: NDArray[np.integer], state: State
) -> tuple[float, State]:
    """As `model.evaluate_step`, with divided logits; the sum is a number of float64."""
    logits, state = model.forward(inputs, state)  # (B, T, V)
    return float(cross_entropy(logits.astype(np.float64) / temperature, targets).sum()), state


def score_full_streams(model: Model, corpus: Corpus, show_progress: bool) -> dict[str, Score]:
    """Score the validation and the test part of `corpus` at batch 1, and print the scores."""
    return score_streams(model, corpus, show_progress, EvaluationOptions())


def score_streams(model: Model, corpus: Corpus, show_progress: bool, options: EvaluationOptions) -> dict[str, Score]:
    """Score the validation and the test part of `corpus` as `options` say, and print the scores."""
    scores = {}
    for name in ("valid", "test"):
        tokens = getattr(corpus, name)
        with progress_bar(name, len(tokens) - 1, show_progress) as bar:
            scores[name] = evaluate(model, tokens, corpus.level, **options.arguments, progress=bar.update)
        print(f"  {name} ({options}): {scores[name]}")
    return scores


def progress_bar(description: str, total: int, show: bool) -> tqdm:
    """A bar over `total` tokens, which leaves nothing behind."""
    return tqdm(total=total, desc=description, unit=" tokens", unit_scale=True, leave=False, disable=not show)
