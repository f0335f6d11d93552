"""The command `evaluate_mc`: the score of the mean prediction of a model over its dropout masks.

This is Monte Carlo dropout (Gal and Ghahramani 2016), with masks drawn as in SPEC.md 4.8. A *pass* reads the whole
stream with the masks of one sample.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rhn.backend import Model, load_backend
from rhn.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from rhn.files import remove_leftovers
from rhn.processes import ALONE, Processes, join_processes
from rhn.spec.masks import DropRates, StreamMasks, sample_stream_masks
from rhn.training.evaluate.result import beside, png_of, write_result
from rhn.training.evaluate.stream import evaluate
from rhn.training.options import OptionError, Options, options_from
from rhn.training.run.checkpoint import open_checkpoint
from rhn.training.run.folder import one_writer
from rhn.training.score import UNITS, Score, in_units, score_of_pieces
from rhn.training.terminal.console import be_silent, say, shown_progress
from rhn_datasets import windows

# The authors' script drops passes with a larger perplexity, and clips mean probabilities to this distance from 0 and 1.
LEGACY_LARGEST_PERPLEXITY = 500.0
LEGACY_MARGIN = 1e-10
_HOPELESS = 100  # if so many passes are all dropped, the authors' script would never end


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
    """Log-likelihood in nats of every token except the first, for every sample of `masks`: (S, n - 1).

    Args:
        model: the model to score.
        tokens: (n,) the stream, read at batch 1 by each sample.
        masks: the masks of S samples.
        bptt_length: window length; it changes the result only by rounding.
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
    """The mean probability of every token over the passes so far, in log space and float64.

    With `legacy`, the mean is computed as in the authors' script (`evaluate_mc` of rhn_train.py). Passes with a
    perplexity of 500 or more on this stream are dropped, although this uses the labels that are to be predicted. Mean
    probabilities are clipped to [1e-10, 1 - 1e-10]. One token too many is counted, with a probability of 1e-10.

    Attributes:
        legacy: whether to compute as the authors' script does.
        log_sum: (n,) log of the sum of the probabilities of each token over the kept passes.
        pass_nats: mean negative log-likelihood per token of every pass, kept or not.
        running_nats: mean negative log-likelihood per token of the mean probabilities, after each kept pass.
    """

    legacy: bool
    log_sum: NDArray[np.float64]
    pass_nats: list[float] = field(default_factory=list)
    running_nats: list[float] = field(default_factory=list)

    @classmethod
    def empty(cls, tokens_scored: int, legacy: bool) -> MonteCarloAverage:
        """The average before the first pass."""
        return cls(legacy, np.full(tokens_scored, -np.inf))

    @property
    def kept(self) -> int:
        """Number of passes in the mean."""
        return len(self.running_nats)

    def add(self, log_likelihoods: NDArray[np.floating]) -> None:
        """Add the log-likelihoods (n,) of a pass."""
        log_likelihoods = log_likelihoods.astype(np.float64)
        nats = float(-log_likelihoods.mean())
        self.pass_nats.append(nats)
        if self.legacy and not nats < math.log(LEGACY_LARGEST_PERPLEXITY):
            return
        self.log_sum = np.logaddexp(self.log_sum, log_likelihoods)
        log_mean = self.log_sum - math.log(self.kept + 1)  # (n,)
        self.running_nats.append(_legacy_nats(log_mean) if self.legacy else float(-log_mean.mean()))

    def score(self, level: str) -> Score:
        """The score of the mean probabilities, after at least one kept pass."""
        nll = math.log(self.kept) - self.log_sum  # (n,)
        return replace(score_of_pieces(nll, np.ones(len(nll), int), level), nats=self.running_nats[-1])

    def save(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Write the average to `path`, whole or not at all; `identity` says what was averaged."""
        arrays = {
            "log_sum": self.log_sum,
            "pass_nats": np.array(self.pass_nats),
            "running_nats": np.array(self.running_nats),
        }
        save_checkpoint(path, arrays, {"monte_carlo": dict(identity)})

    @classmethod
    def load(cls, path: Path, identity: Mapping[str, Any]) -> MonteCarloAverage:
        """Read a file that `save` wrote.

        Raises:
            CheckpointError: the file is damaged or of another kind.
            OptionError: the samples in the file have another identity than `identity`.
        """
        arrays, metadata = load_checkpoint(path)
        names = ("log_sum", "pass_nats", "running_nats")
        if not isinstance(metadata.get("monte_carlo"), dict) or any(
            name not in arrays or arrays[name].dtype != np.float64 or arrays[name].ndim != 1 for name in names
        ):
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
    """Everything that the mean depends on, except the number of samples, as plain values for JSON."""
    weights, stream = hashlib.sha256(), hashlib.sha256(tokens.astype(np.int64).tobytes())
    for name, value in model.parameters().items():
        weights.update(name.encode())
        weights.update(value.tobytes())
    return {
        "model": weights.hexdigest(),
        "part of the data": stream.hexdigest(),
        "set of drop rates": list(rates) if rates.drop_update else list(rates[:4]),  # as before there was drop_update
        "seed": seed,
        "legacy_mc": legacy,
    }


def add_samples(
    model: Model,
    tokens: NDArray[np.integer],
    average: MonteCarloAverage,
    options: Options,
    rates: DropRates,
    seed: int,
    *,
    processes: Processes = ALONE,
    after_batch: Callable[[], Any] = lambda: None,
    progress: Callable[[int], Any] = lambda tokens: None,
) -> None:
    """Add samples to `average`, in place, until it holds `options.mc_samples` samples.

    Args:
        model: the model to score.
        tokens: (n,) the stream.
        average: the samples so far. The masks of a pass depend only on its number, so continuing later changes nothing.
        options: `mc_samples`, `mc_rows` and `bptt_length` are used.
        rates: drop rates of the masks.
        seed: seed of the masks.
        processes: each of them calls this, with the same `average`, and computes its share of the samples.
        after_batch: called after every batch of samples.
        progress: called with the number of tokens scored since the last call, over all samples.

    Raises:
        OptionError: the filter of the authors' script drops every pass.
        ProcessLostError: another process has ended.
    """

    def progress_of_all(tokens: int) -> None:
        progress(tokens * processes.count)

    while (missing := options.mc_samples - average.kept) > 0:
        first = len(average.pass_nats)
        rows = min(options.mc_rows, math.ceil(missing / processes.count))
        # The processes take turns. So each gather below has consecutive samples, and the sum has its usual order.
        numbers = range(first + processes.rank, first + rows * processes.count, processes.count)
        masks = sample_stream_masks(model.config, rates, seed, numbers, one_draw_for_all_words=average.legacy)
        own = stream_log_likelihoods(model, tokens, masks, options.bptt_length, progress_of_all)  # (rows, n - 1)
        passes = (log_likelihoods for row in own for log_likelihoods in processes.gather(row))
        for log_likelihoods in islice(passes, missing):  # the last turn may be incomplete
            average.add(log_likelihoods)
        after_batch()
        if average.kept == 0 and len(average.pass_nats) >= _HOPELESS:
            raise OptionError(
                f"legacy_mc=True is not accepted: none of {len(average.pass_nats)} passes has a perplexity below"
                f" {LEGACY_LARGEST_PERPLEXITY:g}, so the authors' script would never end; use legacy_mc=False"
            )


def _legacy_nats(log_mean: NDArray[np.float64]) -> float:
    lowest = math.log(LEGACY_MARGIN)
    clipped = np.clip(log_mean, lowest, math.log1p(-LEGACY_MARGIN))  # (n,)
    return float(-(clipped.sum() + lowest) / (len(clipped) + 1))


# ---------------------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------------------


def evaluate_mc(backend_name: str, values: Mapping[str, Any], given: Mapping[str, Any]) -> float:
    """The command: score a checkpoint at batch 1 by Monte Carlo dropout, continuing from the samples in `mc_file`.

    Every sample has one set of masks for the whole stream, drawn with the drop rates of the run. The command prints the
    score and the static score, and writes all numbers and a curve (score against number of samples) beside `mc_file`.
    Several processes share the samples, and the first one prints and writes. The arguments are those of
    `open_checkpoint`.

    Raises:
        ValueError, OSError, ImportError, ProcessLostError: with one sentence for the user.
    """
    _check_file(values["mc_file"])
    device = options_from(values).device
    processes = join_processes(load_backend(backend_name), device)
    if not processes.is_first:
        be_silent()
    opened = open_checkpoint(backend_name, values, given, processes)
    o, rates = opened.options, opened.plan.rates
    if not any(rates):
        raise OptionError("drop rates of 0 are not accepted: a run without dropout has no masks to sample")
    corpus = opened.load_corpus()
    level, tokens = corpus.level, getattr(corpus, o.part)

    label = f"{'legacy-mc' if o.legacy_mc else 'mc'}-{o.part}"
    file = Path(o.mc_file or beside(str(o.checkpoint), f"{label}.safetensors"))
    identity = identity_of(opened.model, tokens, rates, o.seed, o.legacy_mc)
    in_use = f"mc_file={str(file)!r} is not accepted: another process is drawing samples for it"
    with ExitStack() as stack:
        if processes.is_first:
            stack.enter_context(one_writer(file.with_name(f".{file.name}.lock"), in_use))
            remove_leftovers(file.parent, file.name)
        if file.exists():
            average = MonteCarloAverage.load(file, identity)
            say(f"continued from the {average.kept} samples in {file}")
        else:
            average = MonteCarloAverage.empty(len(tokens) - 1, o.legacy_mc)

        passes_to_go = max(o.mc_samples - average.kept, 0)
        with shown_progress("samples", passes_to_go * (len(tokens) - 1), show=o.progress) as bar:

            def after_batch() -> None:
                if processes.is_first:
                    average.save(file, identity)
                if average.kept:
                    value = in_units(average.running_nats[-1], level)
                    bar.note(f"{UNITS[level]} {value:.4g} of {average.kept} samples")

            add_samples(
                *(opened.model, tokens, average, o, rates, o.seed),
                processes=processes,
                after_batch=after_batch,
                progress=bar.update,
            )
    score = average.score(level)
    if not processes.is_first:
        return score.value
    static = evaluate(opened.model, tokens, level)
    shown = {
        f"{o.part} (batch 1, no dropout)": str(static),
        f"{o.part} (batch 1, {_description(average)})": str(score),
    }
    for name, value in shown.items():
        say(f"  {name}: {value}")
    figures = {
        "metric": UNITS[level],
        "part": o.part,
        "legacy_mc": o.legacy_mc,
        "samples": average.kept,
        "passes": len(average.pass_nats),
        "drop_rates": rates._asdict(),
        "seed": o.seed,
        "score": {**asdict(score), "value": score.value},
        "static_score": {**asdict(static), "value": static.value},
        "value_of_each_pass": [in_units(nats, level) for nats in average.pass_nats],
        "value_after_each_sample": [in_units(nats, level) for nats in average.running_nats],
    }
    chart = monte_carlo_chart(average.running_nats, static.nats, level, file.stem)
    write_result(file.with_suffix(""), shown, figures, chart)
    return score.value


def _description(average: MonteCarloAverage) -> str:
    if not average.legacy:
        return f"MC dropout, mean of {average.kept} samples, all kept"
    return (
        f"MC dropout as in the authors' script, not comparable: one draw drops all words or none, and"
        f" {average.kept} of {len(average.pass_nats)} passes were kept, those with a perplexity below"
        f" {LEGACY_LARGEST_PERPLEXITY:g} on this text"
    )


def _check_file(file: str | None) -> None:
    if file is not None and not (file.endswith(".safetensors") and Path(file).parent.is_dir()):
        raise OptionError(
            f"mc_file={file!r} is not accepted: expected None, or a name that ends in .safetensors, in a folder"
            " that exists"
        )


def monte_carlo_chart(running_nats: Sequence[float], static_nats: float, level: str, title: str) -> bytes:
    """A PNG: the score of the mean prediction against the number of samples, and the score without dropout.

    Args:
        running_nats: score after 1, 2, ... samples, in nats per token.
        static_nats: score without dropout, in nats per token.
        level: "word", "char" or "byte".
        title: title of the picture.
    """
    from matplotlib.figure import Figure  # without pyplot: no display and no global state

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    values = [in_units(nats, level) for nats in running_nats]
    axes.plot(range(1, len(values) + 1), values, marker="." if len(values) < 30 else "", label="mean of the samples")
    axes.axhline(in_units(static_nats, level), color="0.4", linestyle="dashed", label="no dropout")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_title(title, parse_math=False)  # a file may have any name
    axes.set(xlabel="samples", ylabel=UNITS[level])
    axes.grid(alpha=0.3)
    axes.legend()
    return png_of(figure)
