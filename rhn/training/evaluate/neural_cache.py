"""The command `evaluate_cache`: the score of a model that also looks up what followed similar states before.

The continuous cache is by Grave, Joulin and Usunier 2016, arXiv 1612.04426. Nothing is trained. The prediction is a
mixture of the softmax and a cache. In the cache, each of the last `window` tokens has a weight that grows with the
similarity of the state before this token to the current state,

    p_cache(w) = (sum of exp(theta * s_t . s_i) over i with x_{i+1} = w) / (the same over all i),   t - window <= i < t
    p(w) = (1 - lambda) * p_softmax(w) + lambda * p_cache(w)

with s the states of the top layer and x the tokens. The first token of a stream has no past, so only the softmax
predicts it. Cache scores cannot be compared with static scores, because the model sees much more text than its state
remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rhn.backend import Model
from rhn.spec.config import RHNConfig
from rhn.spec.parameters import Parameters
from rhn.training.evaluate.result import beside, write_result
from rhn.training.evaluate.stream import FULL_WINDOW
from rhn.training.run.checkpoint import build_model, open_checkpoint
from rhn.training.score import UNITS, Score, score_of_windows
from rhn.training.terminal.console import say, shown_progress
from rhn_datasets import windows

Array = NDArray[np.float64]
Setting = tuple[float, float]  # theta and lambda

# The values that are tried on the validation part if the user gives none.
THETAS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
LAMBDAS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)


class NeuralCache:
    """The last states of a stream, each with the token that followed it; at most `window` of them.

    Args:
        window: number of past states that predict a token.
        thetas: weights of the similarity; with 0 all past states count the same.
    """

    def __init__(self, window: int, thetas: Sequence[float]) -> None:
        self._window, self._thetas = window, thetas
        self._states: Array | None = None  # (m, H), m <= window
        self._followers = np.zeros(0, np.int64)  # (m,)

    def log_probabilities(self, states: Array, targets: NDArray[np.integer]) -> Array:
        """Log of p_cache of the next `targets` (n,), for each theta: (thetas, n); nan where there is no past.

        `states` (n, H) are the states before the targets. Both are added to the cache, so later targets see earlier
        ones.
        """
        past = states[:0] if self._states is None else self._states
        keys, followers = np.concatenate([past, states]), np.concatenate([self._followers, targets])  # (m + n, H)
        age = len(past) + np.arange(len(states))[:, None] - np.arange(len(keys))  # (n, m + n)
        is_past = (age >= 1) & (age <= self._window)
        votes = is_past & (followers == targets[:, None])  # (n, m + n)
        likeness = states @ keys.T  # (n, m + n)
        self._states, self._followers = keys[-self._window :], followers[-self._window :]
        with np.errstate(invalid="ignore"):  # where there is no past: nan
            logs = [
                _log_sum_exp(theta * likeness, votes) - _log_sum_exp(theta * likeness, is_past)
                for theta in self._thetas
            ]
        return np.where(is_past.any(axis=1), np.array(logs), np.nan)


def _log_sum_exp(values: Array, chosen: NDArray[np.bool_]) -> Array:
    """Log of the sum of exponentials of the `chosen` entries of `values` (n, m), per row; -inf if none is chosen."""
    values = np.where(chosen, values, -np.inf)
    largest = values.max(axis=1, initial=-np.inf)  # (n,)
    finite = np.where(np.isfinite(largest), largest, 0.0)
    with np.errstate(divide="ignore"):  # the logarithm of nothing is -inf
        return finite + np.log(np.exp(values - finite[:, None]).sum(axis=1))


def mixed(log_softmax: Array, log_cache: Array, share: float) -> Array:
    """Log of (1 - share) * p_softmax + share * p_cache; p_softmax alone where `log_cache` is nan. All (..., n)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mixture = np.logaddexp(np.log1p(-share) + log_softmax, np.log(share) + log_cache)
    return np.where(np.isnan(log_cache), log_softmax, mixture)


def with_states_as_logits(config: RHNConfig, parameters: Parameters) -> tuple[RHNConfig, Parameters]:
    """A model whose logits also contain the states of the top layer: its softmax has H more outputs, the identity.

    So any backend can return these states, and they are as correct as its logits. The first V of the V + H logits are
    the original model's.
    """
    identity = np.eye(config.hidden_size)
    no_rows = np.zeros((config.hidden_size, config.embedding_width))
    softmax = parameters["embedding"].T if config.tie_weights else parameters["softmax.weight"]
    if config.has_projection:
        softmax = parameters["projection.weight"] @ softmax  # (H, E) @ (E, V)
    extended = {
        **{name: value for name, value in parameters.items() if name != "projection.weight"},
        "embedding": np.concatenate([parameters["embedding"], no_rows]),  # (V + H, E)
        "softmax.weight": np.concatenate([softmax, identity], axis=1),  # (H, V + H)
        "softmax.bias": np.concatenate([parameters["softmax.bias"], np.zeros(config.hidden_size)]),  # (V + H,)
    }
    wide = replace(
        config,
        vocab_size=config.vocab_size + config.hidden_size,
        embedding_size=config.embedding_width,
        tie_weights=False,
    )
    return wide, extended


def evaluate_with_cache(
    model: Model,
    tokens: NDArray[np.integer],
    level: str,
    window: int,
    thetas: Sequence[float],
    lambdas: Sequence[float],
    progress: Callable[[int], Any] = lambda tokens: None,
) -> tuple[Score, dict[Setting, Score]]:
    """The static score of a stream at batch 1, and its score with a cache for each theta and lambda.

    Args:
        model: made by `with_states_as_logits`.
        tokens: (n,) the stream.
        level: "word", "char" or "byte".
        window: number of past tokens in the cache.
        thetas: values of theta to try.
        lambdas: values of lambda to try.
        progress: called with the number of tokens scored since the last call.
    """
    vocab_size = model.config.vocab_size - model.config.hidden_size
    cache = NeuralCache(window, thetas)
    state: Any = None
    static, with_cache, counts = [], [], []
    for inputs, targets in windows(tokens, 1, FULL_WINDOW, drop_last=False):
        outputs, state = model.forward(inputs, state)  # (1, T, V + H)
        logits, states = np.split(outputs[0].astype(np.float64), [vocab_size], axis=1)  # (T, V), (T, H)
        rows = np.arange(len(logits))
        every = np.ones_like(logits, bool)
        log_softmax = logits[rows, targets[0]] - _log_sum_exp(logits, every)  # (T,)
        log_cache = cache.log_probabilities(states, targets[0])  # (thetas, T)
        with_cache.append([-mixed(log_softmax, log_cache, share).sum(axis=1) for share in lambdas])  # (lambdas, thetas)
        static.append(-log_softmax.sum())
        counts.append(targets.size)
        progress(targets.size)
    nll, count = np.array(with_cache), np.array(counts)  # (windows, lambdas, thetas), (windows,)
    return score_of_windows(np.array(static), count, level), {
        (theta, share): score_of_windows(nll[:, j, i], count, level)
        for i, theta in enumerate(thetas)
        for j, share in enumerate(lambdas)
    }


def evaluate_cache(backend_name: str, values: Mapping[str, Any], given: Mapping[str, Any]) -> float:
    """The command: score a checkpoint at batch 1 with a cache, and without it.

    If theta or lambda is not given, the best value of a grid on the validation part is used. The arguments are those of
    `open_checkpoint`.

    Raises:
        ValueError, OSError, ImportError: with one sentence for the user.
    """
    opened = open_checkpoint(backend_name, values, given)
    o, corpus = opened.options, opened.load_corpus()
    wide = with_states_as_logits(opened.model.config, opened.model.parameters())
    precision = opened.plan.precision(training=False, device=o.device or "cpu")
    model = build_model(opened.backend, *wide, o, precision)
    thetas = THETAS if o.cache_theta is None else (o.cache_theta,)
    lambdas = LAMBDAS if o.cache_lambda is None else (o.cache_lambda,)

    def scored(part: str, thetas: Sequence[float], lambdas: Sequence[float]) -> tuple[Score, dict[Setting, Score]]:
        tokens = getattr(corpus, part)
        with shown_progress(f"cache, {part}", len(tokens) - 1, show=o.progress) as bar:
            return evaluate_with_cache(model, tokens, corpus.level, o.cache_window, thetas, lambdas, bar.update)

    theta, share, chosen = thetas[0], lambdas[0], ""
    grid: dict[Setting, Score] = {}
    if len(thetas) * len(lambdas) > 1:
        _, grid = scored("valid", thetas, lambdas)
        theta, share = min(grid, key=lambda setting: grid[setting].nats)
        chosen = " chosen on valid,"
    static, scores = scored(o.part, [theta], [share])
    score = scores[theta, share]
    say(f"  {o.part} (static, batch 1): {static}")
    setting = f"window {o.cache_window},{chosen} theta {theta:g}, lambda {share:g}"
    how = f"{o.part} (neural cache, not comparable with static scores; {setting})"
    say(f"  {how}: {score}")
    figures = {
        "metric": UNITS[corpus.level],
        "part": o.part,
        "options": {"cache_window": o.cache_window, "cache_theta": theta, "cache_lambda": share, "part": o.part},
        "score": {**asdict(score), "value": score.value},
        "static_score": {**asdict(static), "value": static.value},
        "grid": [{"theta": t, "lambda": s, "valid": tried.value} for (t, s), tried in grid.items()],
    }
    shown = {f"{o.part} (static, batch 1)": str(static), how: str(score)}
    write_result(beside(str(o.checkpoint), f"cache-{o.part}"), shown, figures, None)
    return score.value
