"""The command `evaluate`: the score of a model on a stream of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rhn.backend import Model, State
from rhn.spec.reference import cross_entropy
from rhn.training.options import Options
from rhn.training.run.checkpoint import open_checkpoint
from rhn.training.score import Score, score_of_windows
from rhn.training.terminal.console import say, shown_progress
from rhn_datasets import Corpus, windows

FULL_WINDOW = 100  # window length for a full stream; the score does not depend on it


def evaluate(
    model: Model,
    tokens: NDArray[np.integer],
    level: str,
    *,
    batch_size: int = 1,
    bptt_length: int = FULL_WINDOW,
    drop_last: bool = False,
    reset: bool = False,
    temperature: float = 1.0,
    progress: Callable[[int], Any] = lambda tokens: None,
) -> Score:
    """Score `tokens` without dropout. The state is carried from window to window, unless `reset` is set.

    Args:
        model: the model to score; it is not changed.
        tokens: (n,) the stream.
        level: "word", "char" or "byte".
        batch_size: with 1, every token except the first is scored in its full context; B cuts the stream into B rows.
        bptt_length: window length; without `reset` it changes the result only by rounding.
        drop_last: leave out a last window shorter than `bptt_length`, as the authors' programs do.
        reset: start every window from a zero state.
        temperature: divides the logits. Values other than 1 are slower: the logits of every window are copied to NumPy.
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
        if reset:
            state = model.zero_state(batch_size)
        value, state = step(inputs, targets, state)
        sums.append(value)  # stays on the device, which would idle if each value were read at once
        counts.append(targets.size)
        progress(targets.size)
    nll = np.array([float(read(value)) for value in sums])  # (windows,)
    return score_of_windows(nll, np.array(counts), level)


def _step_at_temperature(
    model: Model, temperature: float, inputs: NDArray[np.integer], targets: NDArray[np.integer], state: State
) -> tuple[float, State]:
    """Like `model.evaluate_step`, with divided logits; the sum is computed in float64."""
    logits, state = model.forward(inputs, state)  # (B, T, V)
    return float(cross_entropy(logits.astype(np.float64) / temperature, targets).sum()), state


def score_full_streams(model: Model, corpus: Corpus, show_progress: bool) -> dict[str, Score]:
    """Score the validation and the test part of `corpus` at batch 1, and print the scores."""
    return score_streams(model, corpus, Options(progress=show_progress))


def score_streams(model: Model, corpus: Corpus, options: Options) -> dict[str, Score]:
    """Score the validation and the test part of `corpus` as the option `evaluation` says, and print the scores.

    "full" scores every token except the first in its full context, at batch 1. "windows" forgets the context after
    every `bptt_length` tokens, for comparison with models that read separate windows. "authors_batched" scores
    `batch_size` rows in windows of `bptt_length` and drops incomplete windows, as the authors' programs do to choose
    their checkpoint.
    """
    rows, length = options.batch_size, options.bptt_length
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "full": ("batch 1", {"batch_size": 1, "bptt_length": FULL_WINDOW}),
        "windows": (
            f"batch 1, from a zero state every {length} tokens",
            {"batch_size": 1, "bptt_length": length, "reset": True},
        ),
        "authors_batched": (
            f"as in the authors' programs: batch {rows}, windows of {length}, incomplete windows dropped",
            {"batch_size": rows, "bptt_length": length, "drop_last": True},
        ),
    }
    way, how = ways[options.evaluation]
    if options.temperature != 1.0:
        way += f"; temperature {options.temperature:g}"
    scores = {}
    for name in ("valid", "test"):
        tokens = getattr(corpus, name)
        with shown_progress(name, len(tokens) - 1, show=options.progress) as shown:
            scores[name] = evaluate(
                model, tokens, corpus.level, **how, temperature=options.temperature, progress=shown.update
            )
        say(f"  {name} ({way}): {scores[name]}")
    return scores


def evaluate_checkpoint(backend_name: str, values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, float]:
    """The command: score a checkpoint on the validation and test part of its data; see `open_checkpoint`."""
    opened = open_checkpoint(backend_name, values, given)
    scores = score_streams(opened.model, opened.load_corpus(), opened.options)
    return {name: score.value for name, score in scores.items()}
