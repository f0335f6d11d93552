"""Truncated backpropagation through time: drives any `rhn.Model` over a corpus, so that it can stop and go on anywhere.

A run is a pure function of its options: masks are keyed by the number of the training step, so where a run stands is
said by `Progress`, the carried state and the parameters alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rhn.backend import Model
from rhn.spec.masks import DropRates, VariationalMasks, as_rates, sample_masks
from rhn.training.evaluation import UNITS, evaluate, in_units
from rhn.training.options import OptionError
from rhn_datasets import Corpus, Windows, windows

SECONDS_BETWEEN_READINGS = 1.0  # reading a loss waits for the device, so it is done at most this often


@dataclass(frozen=True)
class TrainingOptions:
    """How a model is trained; the names are those of the command line.

    Raises:
        OptionError: an option has a value outside of what is accepted.
    """

    batch_size: int
    bptt_length: int
    epochs: int
    learning_rate: float
    lr_decay: float
    decay_after: int
    weight_decay: float
    max_grad_norm: float
    drop_embedding: float
    drop_input: float
    drop_state: float
    drop_output: float
    seed: int
    checkpoint_minutes: float

    def __post_init__(self) -> None:
        for name in ("batch_size", "bptt_length", "epochs"):
            _require(name, getattr(self, name), isinstance(getattr(self, name), int), 1, "an integer of at least 1")
        for name in ("decay_after", "seed"):
            _require(name, getattr(self, name), isinstance(getattr(self, name), int), 0, "an integer of at least 0")
        for name in ("learning_rate", "lr_decay", "max_grad_norm", "checkpoint_minutes"):
            _require(name, getattr(self, name), _is_number(getattr(self, name)), 5e-324, "a number above 0")
        _require("weight_decay", self.weight_decay, _is_number(self.weight_decay), 0, "a number of at least 0")
        try:
            as_rates(self.rates)
        except ValueError as error:
            raise OptionError(str(error)) from error

    @property
    def rates(self) -> DropRates:
        """The drop rates in one piece."""
        return DropRates(self.drop_embedding, self.drop_input, self.drop_state, self.drop_output)

    def learning_rate_of(self, epoch: int) -> float:
        """Rate of epoch `epoch`, counted from 0; epoch `decay_after` is the first decayed one."""
        return self.learning_rate / self.lr_decay ** max(epoch - self.decay_after + 1, 0)


@dataclass
class Progress:
    """Where a run stands; all of it is JSON."""

    epoch: int = 0  # the epoch in work, from 0
    window: int = 0  # the next window of that epoch
    step: int = 0  # training steps taken
    loss_sum: float = 0.0  # over the windows of the epoch so far
    norm_sum: float = 0.0  # gradient norms, likewise
    seconds: float = 0.0  # spent training in that epoch
    best_valid_nats: float = math.inf
    best_epoch: int = -1
    history: list[dict[str, Any]] = field(default_factory=list)  # one row per finished epoch

    def to_json(self) -> dict[str, Any]:
        """Plain values; JSON has no infinity, so the best score is absent before the first epoch's end."""
        values = asdict(self)
        if math.isinf(self.best_valid_nats):
            del values["best_valid_nats"]
        return values


class DivergedError(RuntimeError):
    """The loss is no longer finite."""


class Trainer:
    """Trains `model` on `corpus` from `progress` on.

    Args:
        model: to be trained, in place.
        corpus: its training part is learned, the other two are scored after every epoch, batched.
        options: see `TrainingOptions`.
        progress: where the run stands; a fresh one for a new run. Changed in place.
        state: the carried state that belongs to `progress`, per layer (B, H); None at the start of an epoch.
        save_last: called with the carried state whenever the run reaches a point to go on from.
        save_best: called when validation has improved.
        on_epoch: called with the new row of `progress.history`.
        stop_requested: polled before each step; true ends the training at that point.
        show_progress: whether to draw a progress bar.
    """

    def __init__(
        self,
        model: Model,
        corpus: Corpus,
        options: TrainingOptions,
        progress: Progress,
        state: list[NDArray] | None,
        *,
        save_last: Callable[[list[NDArray]], None],
        save_best: Callable[[], None],
        on_epoch: Callable[[dict[str, Any]], None],
        stop_requested: Callable[[], bool],
        show_progress: bool = True,
    ) -> None:
        self.model = model
        self.corpus = corpus
        self.options = options
        self.progress = progress
        self.save_last = save_last
        self.save_best = save_best
        self.on_epoch = on_epoch
        self.stop_requested = stop_requested
        self.show_progress = show_progress
        self.windows = windows(corpus.train, options.batch_size, options.bptt_length, drop_last=True)
        self.state: Any = model.zero_state(options.batch_size) if state is None else state
        self._unread: list[tuple[Any, Any]] = []  # (loss, gradient norm) per step, still on the device

    def run(self) -> bool:
        """Train to the last epoch; False if `stop_requested` ended it before, with everything saved."""
        while self.progress.epoch < self.options.epochs:
            if not self._train_epoch():
                return False
            self._finish_epoch()
        return True

    def _train_epoch(self) -> bool:
        p, options = self.progress, self.options
        learning_rate = options.learning_rate_of(p.epoch)
        last_reading = last_save = time.monotonic()
        with self._progress_bar() as bar:
            for inputs, targets, masks in prepared_windows(self.model, self.windows, options, p.window, p.step):
                if self.stop_requested():
                    self._read_losses(bar)
                    self._save_last()
                    return False
                loss, self.state = self.model.train_step(
                    inputs, targets, self.state, masks, learning_rate, options.weight_decay, options.max_grad_norm
                )
                self._unread.append((loss, self.model.last_grad_norm))
                p.window += 1
                p.step += 1
                now = time.monotonic()
                if now - last_reading >= SECONDS_BETWEEN_READINGS or p.window == len(self.windows):
                    self._read_losses(bar)
                    p.seconds += time.monotonic() - last_reading
                    last_reading = time.monotonic()
                if now - last_save >= 60 * options.checkpoint_minutes:
                    self._read_losses(bar)
                    self._save_last()
                    last_save = time.monotonic()
        return True

    def _finish_epoch(self) -> None:
        p, options, level = self.progress, self.options, self.corpus.level
        valid, test = (
            evaluate(self.model, tokens, level, batch_size=options.batch_size, bptt_length=options.bptt_length)
            for tokens in (self.corpus.valid, self.corpus.test)
        )
        trained_tokens = len(self.windows) * options.batch_size * options.bptt_length
        row = {
            "epoch": p.epoch + 1,
            "step": p.step,
            "learning_rate": options.learning_rate_of(p.epoch),
            "train_nats": p.loss_sum / (len(self.windows) * options.bptt_length),
            "valid_nats": valid.nats,
            "test_nats": test.nats,
            "valid_tokens": valid.tokens,
            "test_tokens": test.tokens,
            "gradient_norm": p.norm_sum / len(self.windows),
            "tokens_per_second": trained_tokens / p.seconds,
            "seconds": p.seconds,
        }
        p.history.append(row)
        improved = valid.nats < p.best_valid_nats
        if improved:
            p.best_valid_nats, p.best_epoch = valid.nats, p.epoch + 1
        p.epoch, p.window, p.loss_sum, p.norm_sum, p.seconds = p.epoch + 1, 0, 0.0, 0.0, 0.0
        self.state = self.model.zero_state(options.batch_size)  # the stream starts anew
        if improved:
            self.save_best()
        self._save_last()
        self.on_epoch(row)

    def _read_losses(self, bar: tqdm) -> None:
        """Bring the losses from the device to the record; DivergedError if one of them is not finite."""
        p, options = self.progress, self.options
        for i, (device_loss, device_norm) in enumerate(self._unread):
            loss, norm = float(self.model.to_numpy(device_loss)), float(self.model.to_numpy(device_norm))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                step = p.step - len(self._unread) + i + 1
                raise DivergedError(f"loss {loss} with gradient norm {norm} at step {step} (epoch {p.epoch + 1})")
            p.loss_sum += loss
            p.norm_sum += norm
        bar.update(len(self._unread) * options.batch_size * options.bptt_length)
        self._unread.clear()
        if p.window:
            value = in_units(p.loss_sum / (p.window * options.bptt_length), self.corpus.level)
            bar.set_postfix_str(f"{UNITS[self.corpus.level]} {value:.4g}")

    def _save_last(self) -> None:
        self.save_last([self.model.to_numpy(s) for s in self.state])

    def _progress_bar(self) -> tqdm:
        p, window_tokens = self.progress, self.options.batch_size * self.options.bptt_length
        return tqdm(
            total=len(self.windows) * window_tokens,
            initial=p.window * window_tokens,
            desc=f"epoch {p.epoch + 1}/{self.options.epochs}",
            unit=" tokens",
            unit_scale=True,
            leave=False,
            disable=not self.show_progress,
        )


def prepared_windows(
    model: Model, cut: Windows, options: TrainingOptions, first_window: int, first_step: int
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32], VariationalMasks]]:
    """Inputs (B, T), targets (B, T) and masks of each window, the next one being made while one is trained on."""

    def prepare(window: int) -> tuple[NDArray[np.int32], NDArray[np.int32], VariationalMasks]:
        inputs, targets = cut[window]
        step = first_step + window - first_window
        return inputs, targets, sample_masks(model.config, inputs, options.rates, options.seed, step)

    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(prepare, first_window) if first_window < len(cut) else None
        for window in range(first_window, len(cut)):
            ready = coming.result()  # type: ignore[union-attr]  # there is one as long as windows are left
            coming = pool.submit(prepare, window + 1) if window + 1 < len(cut) else None
            yield ready


def _require(name: str, value: Any, right_type: bool, least: float, accepted: str) -> None:
    if not right_type or isinstance(value, bool) or not value >= least:
        raise OptionError(f"{name}={value!r} is not accepted: it must be {accepted}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
