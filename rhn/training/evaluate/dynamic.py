"""Dynamic evaluation: the model goes on learning from the text that it is scored on (Krause et al. 2018,
arXiv 1709.07432).

Every window is scored before anything is learned from it, so no token is predicted with its own help. Still the figures
are another kind than static ones: at the end of a stream the model has seen most of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rhn.backend import Model
from rhn.spec.parameters import Parameters
from rhn.training.checks import require_integer, require_number, require_one_of
from rhn.training.score import Score, score_of_pieces
from rhn_datasets import windows

# What dynamic_rate=None stands for. That of "rms" is the default of the authors' program, tuned for an LSTM on PTB; for
# "sgd" they have none: this one, over 5 tokens, is the paper's 0.2 for a loss that is summed over time.
DEFAULT_RATE = {"rms": 5e-5, "sgd": 1.0}


@dataclass(frozen=True)
class DynamicOptions:
    """How a model learns while it is evaluated; the names are those of the command line.

    Gradients are those of the loss per token, the mean over window and batch, as in the authors' program.

    Args:
        dynamic_rule: "sgd", or "rms": every gradient is divided by its root mean square over the training data, and
            the weights are pulled back to the trained ones, the stronger the larger that root is.
        dynamic_rate: learning rate, above 0; None: that of `DEFAULT_RATE`.
        dynamic_length: tokens of a window, at least 1.
        dynamic_decay: of "rms", the pull back, at least 0.
        dynamic_epsilon: of "rms", added to the roots, above 0.
        dynamic_batch_size: of "rms", rows side by side when the squares are gathered; more rows, smaller gradients.
        dynamic_windows: of "rms", over how many windows of the training data; None is all.
        max_grad_norm: of "sgd", clips the gradient of the loss summed over the window, as in training.
        part: of the data, "train", "valid" or "test".

    Raises:
        OptionError: an option has a value outside of what is accepted.
    """

    dynamic_rule: str
    dynamic_rate: float | None
    dynamic_length: int
    dynamic_decay: float
    dynamic_epsilon: float
    dynamic_batch_size: int
    dynamic_windows: int | None
    max_grad_norm: float
    part: str

    def __post_init__(self) -> None:
        require_one_of("dynamic_rule", self.dynamic_rule, ("sgd", "rms"))
        for name in ("dynamic_length", "dynamic_batch_size"):
            require_integer(name, getattr(self, name), 1)
        if self.dynamic_windows is not None:
            require_integer("dynamic_windows", self.dynamic_windows, 1)
        if self.dynamic_rate is not None:
            require_number("dynamic_rate", self.dynamic_rate, zero=False)
        require_number("dynamic_decay", self.dynamic_decay, zero=True)
        require_number("dynamic_epsilon", self.dynamic_epsilon, zero=False)
        require_number("max_grad_norm", self.max_grad_norm, zero=False)
        require_one_of("part", self.part, ("train", "valid", "test"))

    @property
    def rate(self) -> float:
        """The learning rate."""
        return DEFAULT_RATE[self.dynamic_rule] if self.dynamic_rate is None else self.dynamic_rate


def evaluate_dynamic_sgd(
    model: Model,
    tokens: NDArray[np.integer],
    level: str,
    options: DynamicOptions,
    progress: Callable[[int], Any] = lambda tokens: None,
) -> Score:
    """Score `tokens` (n,) at batch 1, with a step of SGD after each window.

    Args:
        model: built with plain SGD; its parameters are restored at the end.
        tokens: the stream.
        level: "word", "char" or "byte".
        options: of dynamic evaluation.
        progress: called with the number of tokens scored since the last call.
    """
    state = model.zero_state(1)
    losses, counts = [], []
    with _restored_parameters(model):
        for inputs, targets in windows(tokens, 1, options.dynamic_length, drop_last=False):
            # At batch 1 the step's own loss is the score, from before the step; it is summed over time, hence the rate.
            rate = options.rate / targets.size
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
    options: DynamicOptions,
    roots: Parameters,
    progress: Callable[[int], Any] = lambda tokens: None,
) -> Score:
    """Score `tokens` (n,) at batch 1; after each window the parameters p become

        p - rate * g / (root + epsilon) + pull * (trained - p),    pull = min(decay * root / mean of all roots, 1)

    The limit on the pull keeps it from overshooting the trained value. All of this happens in NumPy: gradients and
    parameters cross from and to the device at every window, which costs more than the step itself for a large model.

    Args:
        model: its parameters are restored at the end.
        tokens: the stream.
        level: "word", "char" or "byte".
        options: of dynamic evaluation.
        roots: of the mean squared gradients; see `gradient_roots`.
        progress: called with the number of tokens scored since the last call.
    """
    decay = options.dynamic_decay
    # Over all parameters alike, so that it does not depend on how they are grouped into tensors.
    mean_root = sum(float(root.sum()) for root in roots.values()) / model.parameter_count
    pulls = {name: np.minimum(decay * root / mean_root, 1.0) for name, root in roots.items()}
    state: Any = None
    nll, counts = [], []
    with _restored_parameters(model) as trained:
        current = dict(trained)
        for inputs, targets in windows(tokens, 1, options.dynamic_length, drop_last=False):
            loss, gradients, state = model.gradients(inputs, targets, state)
            rate = options.rate / targets.size  # the loss is summed over time
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
    options: DynamicOptions,
    progress: Callable[[int], Any] = lambda tokens: None,
) -> Parameters:
    """Root of the mean squared gradient of every parameter, over windows of the training stream `tokens` (n,).

    The gradients are those of the loss per token, without dropout. `progress` is called with the number of tokens
    since the last call.
    """
    cut = windows(tokens, options.dynamic_batch_size, options.dynamic_length, drop_last=True)
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
    """Give the parameters of `model`, and put them back at the end, whatever happens."""
    trained = model.parameters()
    try:
        yield trained
    finally:
        model.load_parameters(trained)
