"""The command `evaluate_dynamic`: the score of a model that keeps learning from the text that it is scored on.

Dynamic evaluation is by Krause et al. 2018, arXiv 1709.07432.

Every window is scored before the model learns from it, so no token helps to predict itself. Still, dynamic scores
cannot be compared with static scores: at the end of a stream, the model has learned from most of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rhn.backend import Model
from rhn.spec.parameters import Parameters
from rhn.training.evaluate.result import beside, write_result
from rhn.training.evaluate.stream import evaluate
from rhn.training.options import OPTIONS, OptionError, Options
from rhn.training.run.checkpoint import open_checkpoint
from rhn.training.score import UNITS, Score, score_of_pieces
from rhn.training.terminal.console import say, shown_progress
from rhn_datasets import DataError, windows

# The rate for dynamic_rate=None. For "rms" it is the default of the authors' program, tuned for an LSTM on PTB. For
# "sgd" they have no default: this one, divided by 5 tokens, is the RHN paper's 0.2 for a loss summed over time.
DEFAULT_RATE = {"rms": 5e-5, "sgd": 1.0}

_RECORDED = [name for name, option in OPTIONS.items() if "evaluate_dynamic" in option.commands and "dynamic" in name]
_RECORDED += ["max_grad_norm", "part"]


def rate_of(options: Options) -> float:
    """The learning rate, for a loss averaged over window and batch, as in the authors' program."""
    return DEFAULT_RATE[options.dynamic_rule] if options.dynamic_rate is None else options.dynamic_rate


def evaluate_dynamic_sgd(
    model: Model,
    tokens: NDArray[np.integer],
    level: str,
    options: Options,
    progress: Callable[[int], Any] = lambda tokens: None,
) -> Score:
    """Score `tokens` (n,) at batch 1, with a step of SGD after each window.

    Args:
        model: built with plain SGD; its parameters are restored at the end.
        tokens: the stream.
        level: "word", "char" or "byte".
        options: the options whose names begin with `dynamic_`, and `max_grad_norm`.
        progress: called with the number of tokens scored since the last call.
    """
    state = model.zero_state(1)
    losses, counts = [], []
    with _restored_parameters(model):
        for inputs, targets in windows(tokens, 1, options.dynamic_length, drop_last=False):
            # At batch 1 the loss of the step, computed before the update, is the score. It is summed over time, so
            # the rate is divided by the number of tokens.
            rate = rate_of(options) / targets.size
            loss, state = model.train_step(inputs, targets, state, None, rate, 0.0, options.max_grad_norm)
            losses.append(loss)  # stays on the device
            counts.append(targets.size)
            progress(targets.size)
    nll = np.array([float(model.to_numpy(loss)) for loss in losses])  # (windows,)
    return score_of_pieces(nll, np.array(counts), level)


def evaluate_dynamic_rms(
    model: Model,
    tokens: NDArray[np.integer],
    level: str,
    options: Options,
    roots: Parameters,
    progress: Callable[[int], Any] = lambda tokens: None,
) -> Score:
    """Score `tokens` (n,) at batch 1; after each window the parameters p become

        p - rate * g / (root + epsilon) + pull * (trained - p),    pull = min(decay * root / mean of all roots, 1)

    The limit of 1 keeps the pull from overshooting the trained value. The update happens in NumPy: gradients and
    parameters are copied from and to the device in every window, which takes longer than the step itself for a large
    model.

    Args:
        model: its parameters are restored at the end.
        tokens: the stream.
        level: "word", "char" or "byte".
        options: the options whose names begin with `dynamic_`.
        roots: square roots of the mean squared gradients; see `gradient_roots`.
        progress: called with the number of tokens scored since the last call.
    """
    decay = options.dynamic_decay
    # The mean over all parameters, so that it does not depend on how they are grouped into tensors.
    mean_root = sum(float(root.sum()) for root in roots.values()) / model.parameter_count
    pulls = {name: np.minimum(decay * root / mean_root, 1.0) for name, root in roots.items()}
    state: Any = None
    nll, counts = [], []
    with _restored_parameters(model) as trained:
        current = dict(trained)
        for inputs, targets in windows(tokens, 1, options.dynamic_length, drop_last=False):
            loss, gradients, state = model.gradients(inputs, targets, state)
            rate = rate_of(options) / targets.size  # the loss is summed over time
            for name, p in current.items():
                step = rate * gradients[name] / (roots[name] + options.dynamic_epsilon)
                current[name] = p - step + pulls[name] * (trained[name] - p)
            model.load_parameters(current)
            nll.append(loss)
            counts.append(targets.size)
            progress(targets.size)
    return score_of_pieces(np.array(nll), np.array(counts), level)


def gradient_roots(
    model: Model,
    tokens: NDArray[np.integer],
    options: Options,
    progress: Callable[[int], Any] = lambda tokens: None,
) -> Parameters:
    """Square root of the mean squared gradient of every parameter, over windows of the training stream `tokens` (n,).

    The gradients are those of the loss per token, without dropout. `progress` is called with the number of tokens
    since the last call.

    Raises:
        OptionError: the stream is too short for a single window.
    """
    try:
        cut = windows(tokens, options.dynamic_batch_size, options.dynamic_length, drop_last=True)
    except DataError as error:
        raise OptionError(
            f"dynamic_batch_size={options.dynamic_batch_size} is not accepted"
            f" with dynamic_length={options.dynamic_length}: {error}"
        ) from error
    count = len(cut) if options.dynamic_windows is None else min(len(cut), options.dynamic_windows)
    squares = {name: np.zeros_like(p) for name, p in model.parameters().items()}
    state: Any = None
    for inputs, targets in (cut[k] for k in range(count)):
        _, gradients, state = model.gradients(inputs, targets, state)
        for name, gradient in gradients.items():
            squares[name] += np.square(gradient / options.dynamic_length)  # the loss is summed over time
        progress(targets.size)
    return {name: np.sqrt(square / count) for name, square in squares.items()}


@contextmanager
def _restored_parameters(model: Model) -> Iterator[Parameters]:
    """Yield the parameters of `model`, and restore them at the end, whatever happens."""
    trained = model.parameters()
    try:
        yield trained
    finally:
        model.load_parameters(trained)


def evaluate_dynamic(backend_name: str, values: Mapping[str, Any], given: Mapping[str, Any]) -> float:
    """The command: score a checkpoint at batch 1 with dynamic evaluation, and without it.

    The arguments are those of `open_checkpoint`.

    Raises:
        ValueError, OSError, ImportError: with one sentence for the user.
    """
    opened = open_checkpoint(backend_name, values, given)
    o, corpus = opened.options, opened.load_corpus()
    model, level, tokens = opened.model, corpus.level, getattr(corpus, o.part)

    with shown_progress("static", len(tokens) - 1, show=o.progress) as bar:
        static = evaluate(model, tokens, level, progress=bar.update)
    say(f"  {o.part} (static, batch 1): {static}")
    rule = f"{o.dynamic_rule}, rate {rate_of(o):g}, windows of {o.dynamic_length}"
    if o.dynamic_rule == "sgd":
        with shown_progress("dynamic", len(tokens) - 1, show=o.progress) as bar:
            score = evaluate_dynamic_sgd(model, tokens, level, o, bar.update)
    else:
        rule += f", decay {o.dynamic_decay:g}"
        with shown_progress("statistics", len(corpus.train), show=o.progress) as bar:
            roots = gradient_roots(model, corpus.train, o, bar.update)
        with shown_progress("dynamic", len(tokens) - 1, show=o.progress) as bar:
            score = evaluate_dynamic_rms(model, tokens, level, o, roots, bar.update)
    how = f"{o.part} (dynamic evaluation, not comparable with static scores; {rule})"
    say(f"  {how}: {score}")
    figures = {
        "metric": UNITS[level],
        "part": o.part,
        "options": {name: getattr(o, name) for name in _RECORDED},
        "score": {**asdict(score), "value": score.value},
        "static_score": {**asdict(static), "value": static.value},
    }
    shown = {f"{o.part} (static, batch 1)": str(static), how: str(score)}
    write_result(beside(str(o.checkpoint), f"dynamic-{o.part}"), shown, figures, None)
    return score.value
