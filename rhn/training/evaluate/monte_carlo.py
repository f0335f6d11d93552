"""Monte Carlo dropout: the mean prediction of a model over its dropout masks (Gal and Ghahramani 2016)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rhn.backend import Model
from rhn.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from rhn.spec.masks import DropRates, StreamMasks, sample_stream_masks
from rhn.training.checks import require_integer, require_one_of
from rhn.training.options import OptionError
from rhn.training.score import Score, score_of_pieces
from rhn_datasets import windows

# Of the authors' script: passes with a larger perplexity are thrown away, and no mean probability is taken to be
# closer to 0 or 1 than this.
LEGACY_LARGEST_PERPLEXITY = 500.0
LEGACY_MARGIN = 1e-10
_HOPELESS = 100  # passes without a single kept one after which theirs would go on for ever


@dataclass(frozen=True)
class MonteCarloOptions:
    """How the mean prediction is sampled; the names are those of the command line.

    Args:
        mc_samples: samples to average, at least 1.
        mc_rows: samples that run side by side as rows of one batch. The result does not depend on it; the memory does:
            mc_rows * bptt_length * V logits on the device, mc_rows * tokens log-likelihoods in NumPy.
        mc_file: where the running sums are kept, a name that ends in .safetensors; None: beside the checkpoint.
        legacy_mc: sample as the authors' script did; see `MonteCarloAverage`.
        bptt_length: window length; the result does not depend on it either.
        part: of the data, "train", "valid" or "test".

    Raises:
        OptionError: an option has a value outside of what is accepted.
    """

    mc_samples: int
    mc_rows: int
    mc_file: str | None
    legacy_mc: bool
    bptt_length: int
    part: str

    def __post_init__(self) -> None:
        for name in ("mc_samples", "mc_rows", "bptt_length"):
            require_integer(name, getattr(self, name), 1)
        require_one_of("legacy_mc", self.legacy_mc, (True, False))
        require_one_of("part", self.part, ("train", "valid", "test"))
        file = self.mc_file
        if file is not None and not (
            isinstance(file, str) and file.endswith(".safetensors") and Path(file).parent.is_dir()
        ):
            raise OptionError(
                f"mc_file={file!r} is not accepted: expected None, or a file name that ends in .safetensors, in a"
                " folder that exists"
            )


# ---------------------------------------------------------------------------------------------------------------------
# Passes over the stream, and their mean
# ---------------------------------------------------------------------------------------------------------------------


def stream_log_likelihoods(
    model: Model,
    tokens: NDArray[np.integer],
    masks: StreamMasks,
    bptt_length: int,
    progress: Callable[[int], Any] = lambda tokens: None,
) -> NDArray[np.floating]:
    """Log-likelihood in nats of every token but the first under every sample of `masks`: (S, n - 1).

    Args:
        model: of which the samples are.
        tokens: (n,) the stream, read at batch 1 by each sample.
        masks: of the S samples.
        bptt_length: window length; the result does not depend on it, but for rounding.
        progress: called with the number of tokens scored since the last call, over all samples.
    """
    state = model.zero_state(masks.samples)
    pieces = []
    for window in windows(tokens, 1, bptt_length, drop_last=False):
        inputs, targets = (np.repeat(part, masks.samples, axis=0) for part in window)  # (S, T) each
        values, state = model.log_likelihoods(inputs, targets, state, masks.of_window(inputs))
        pieces.append(model.to_numpy(values))  # (S, T)
        progress(targets.size)
    return np.concatenate(pieces, axis=1)


@dataclass
class MonteCarloAverage:
    """The mean probability of every token, over the passes so far, in log space and float64.

    With `legacy`, as the authors' script (`evaluate_mc` of rhn_train.py) does it: a pass with a perplexity of 500 or
    more over this very stream is thrown away, which looks at the labels that are to be predicted; mean probabilities
    are clipped to [1e-10, 1 - 1e-10]; and one token too many is counted, with a probability of 1e-10.

    Attributes:
        legacy: whether to do so.
        log_sum: (n,) log of the sum of the probabilities of each token over the kept passes.
        pass_nats: mean negative log-likelihood per token of every pass, kept or not.
        running_nats: that of the mean probabilities, after each kept pass.
    """

    legacy: bool
    log_sum: NDArray[np.float64]
    pass_nats: list[float] = field(default_factory=list)
    running_nats: list[float] = field(default_factory=list)

    @classmethod
    def empty(cls, tokens_scored: int, legacy: bool) -> MonteCarloAverage:
        """Of no pass yet."""
        return cls(legacy, np.full(tokens_scored, -np.inf))

    @property
    def kept(self) -> int:
        """Number of passes in the mean."""
        return len(self.running_nats)

    def add(self, log_likelihoods: NDArray[np.floating]) -> None:
        """Take in a pass (n,)."""
        log_likelihoods = log_likelihoods.astype(np.float64)
        nats = float(-log_likelihoods.mean())
        self.pass_nats.append(nats)
        if self.legacy and not nats < math.log(LEGACY_LARGEST_PERPLEXITY):
            return
        self.log_sum = np.logaddexp(self.log_sum, log_likelihoods)
        log_mean = self.log_sum - math.log(self.kept + 1)  # (n,)
        self.running_nats.append(_legacy_nats(log_mean) if self.legacy else float(-log_mean.mean()))

    def score(self, level: str) -> Score:
        """Of the mean probabilities; at least one pass must be there."""
        nll = math.log(self.kept) - self.log_sum  # (n,)
        return replace(score_of_pieces(nll, np.ones(len(nll), int), level), nats=self.running_nats[-1])

    def save(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Write all of it to `path`, whole or not at all; `identity` says of what it is the mean."""
        arrays = {
            "log_sum": self.log_sum,
            "pass_nats": np.array(self.pass_nats),
            "running_nats": np.array(self.running_nats),
        }
        save_checkpoint(path, arrays, {"monte_carlo": dict(identity)})

    @classmethod
    def load(cls, path: Path, identity: Mapping[str, Any]) -> MonteCarloAverage:
        """What `save` wrote.

        Raises:
            CheckpointError: the file is damaged or something else.
            OptionError: it is the mean of something else than `identity` says.
        """
        arrays, metadata = load_checkpoint(path)
        if "monte_carlo" not in metadata:
            raise CheckpointError(f"{path} holds no Monte Carlo samples")
        different = [name for name, value in identity.items() if metadata["monte_carlo"].get(name) != value]
        if different:
            raise OptionError(
                f"mc_file={path} is not accepted: its samples were drawn with another {' and '.join(different)};"
                " name another file, or remove it"
            )
        running, passes = arrays["running_nats"].tolist(), arrays["pass_nats"].tolist()
        return cls(identity["legacy_mc"], arrays["log_sum"], passes, running)


def identity_of(model: Model, tokens: NDArray[np.integer], rates: DropRates, seed: int, legacy: bool) -> dict[str, Any]:
    """What a mean depends on, besides the number of samples: plain values, fit for JSON."""
    weights, stream = hashlib.sha256(), hashlib.sha256(tokens.astype(np.int64).tobytes())
    for name, value in model.parameters().items():
        weights.update(name.encode())
        weights.update(value.tobytes())
    return {
        "model": weights.hexdigest(),
        "part of the data": stream.hexdigest(),
        "set of drop rates": list(rates),
        "seed": seed,
        "legacy_mc": legacy,
    }


def add_samples(
    model: Model,
    tokens: NDArray[np.integer],
    average: MonteCarloAverage,
    options: MonteCarloOptions,
    rates: DropRates,
    seed: int,
    *,
    after_batch: Callable[[], Any] = lambda: None,
    progress: Callable[[int], Any] = lambda tokens: None,
) -> None:
    """Grow `average` in place until it holds `options.mc_samples` samples.

    Args:
        model: of which they are.
        tokens: (n,) the stream.
        average: to begin with; sample k is drawn as the k-th pass, so that going on later changes nothing.
        options: how many, and how many at once.
        rates: of the masks.
        seed: of the masks.
        after_batch: called after every batch of rows, when `average` is whole.
        progress: called with the number of tokens scored since the last call, over all samples.

    Raises:
        OptionError: the authors' filter lets nothing through.
    """
    while average.kept < options.mc_samples:
        first = len(average.pass_nats)
        rows = min(options.mc_rows, options.mc_samples - average.kept)
        numbers = range(first, first + rows)
        masks = sample_stream_masks(model.config, rates, seed, numbers, one_draw_for_all_words=average.legacy)
        for log_likelihoods in stream_log_likelihoods(model, tokens, masks, options.bptt_length, progress):
            average.add(log_likelihoods)
        after_batch()
        if average.kept == 0 and len(average.pass_nats) >= _HOPELESS:
            raise OptionError(
                f"legacy_mc=True is not accepted: none of {len(average.pass_nats)} passes has a perplexity below"
                f" {LEGACY_LARGEST_PERPLEXITY:g}, so that the authors' script would never end; use legacy_mc=False"
            )


def _legacy_nats(log_mean: NDArray[np.float64]) -> float:
    lowest = math.log(LEGACY_MARGIN)
    clipped = np.clip(log_mean, lowest, math.log1p(-LEGACY_MARGIN))  # (n,)
    return float(-(clipped.sum() + lowest) / (len(clipped) + 1))
