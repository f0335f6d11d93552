"""Truncated backpropagation through time: drives any `rhn.Model` over a corpus, so that it can stop and go on anywhere.

A run is a pure function of its options: masks are keyed by the number of the training step, so where a run stands is
said by `Progress`, the carried state and the parameters alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rhn.backend import Model
from rhn.spec.masks import DropRates, VariationalMasks, as_rates, sample_masks
from rhn.training.checks import require_integer, require_number, require_one_of
from rhn.training.evaluate.stream import evaluate
from rhn.training.options import OptionError, pick
from rhn.training.schedules import SCHEDULES, Schedule, averaging_is_due, epochs_since_best
from rhn.training.score import UNITS, in_units
from rhn_datasets import Corpus, windows

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
    schedule: str
    learning_rate: float
    lr_decay: float
    decay_after: int
    plateau_patience: int
    patience: int | None
    average_after: int | None
    weight_decay: float
    max_grad_norm: float
    drop_embedding: float
    drop_input: float
    drop_state: float
    drop_output: float
    seed: int
    checkpoint_minutes: float
    max_steps: int | None
    max_minutes: float | None

    def __post_init__(self) -> None:
        require_one_of("schedule", self.schedule, SCHEDULES)
        for name in ("batch_size", "bptt_length", "epochs", "plateau_patience"):
            require_integer(name, getattr(self, name), 1)
        for name in ("decay_after", "seed"):
            require_integer(name, getattr(self, name), 0)
        for name in ("patience", "average_after", "max_steps"):
            if getattr(self, name) is not None:
                require_integer(name, getattr(self, name), 1)
        for name in ("learning_rate", "lr_decay", "max_grad_norm", "checkpoint_minutes"):
            require_number(name, getattr(self, name), zero=False)
        if self.max_minutes is not None:
            require_number("max_minutes", self.max_minutes, zero=False)
        require_number("weight_decay", self.weight_decay, zero=True)
        try:
            as_rates(self.rates)
        except ValueError as error:
            raise OptionError(str(error)) from error

    @property
    def rates(self) -> DropRates:
        """The drop rates in one piece."""
        return pick(DropRates, vars(self))

    def learning_rate_of(self, epoch: int, valid_scores: Sequence[float]) -> float:
        """Rate of epoch `epoch`, counted from 0, after the validation scores of those before."""
        return pick(Schedule, vars(self)).rate(epoch, valid_scores)


@dataclass
class Progress:
    """Where a run stands; all of it is JSON."""

    epoch: int = 0  # the epoch in work, from 0
    window: int = 0  # the next window of that epoch
    step: int = 0  # training steps taken
    loss_sum: float = 0.0  # over the windows of the epoch so far
    norm_sum: float = 0.0  # gradient norms, likewise
    seconds: float = 0.0  # spent training in that epoch
    waiting_seconds: float = 0.0  # ... of which the model had nothing to do, because its data were not ready
    history: list[dict[str, Any]] = field(default_factory=list)  # one row per finished epoch

    @property
    def valid_scores(self) -> list[float]:
        """Validation score of every finished epoch, in nats."""
        return [row["valid_nats"] for row in self.history]


class DivergedError(ArithmeticError):
    """The loss is no longer finite."""


class Trainer:
    """Trains `model` on `corpus` from `progress` on.

    Args:
        model: to be trained, in place.
        corpus: its training part is learned, the other two are scored after every epoch, batched.
        options: see `TrainingOptions`.
        progress: where the run stands; a fresh one for a new run. Changed in place.
        state: the carried state that belongs to `progress`, per layer (B, H); none at the start of an epoch.
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
        state: Sequence[NDArray],
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
        self.state: Any = state or model.zero_state(options.batch_size)
        self._unread: list[tuple[Any, Any]] = []  # (loss, gradient norm) per step, still on the device
        self._started = time.monotonic()

    def run(self) -> str:
        """Train until there is a reason to stop, which is returned: "epochs", "patience", "max_steps", "max_minutes"
        or "signal". Everything is saved then."""
        while not (reason := self._reason_to_finish()):
            if reason := self._train_epoch():
                self._save_last()
                return reason
            self._finish_epoch()
        return reason

    def _reason_to_finish(self) -> str:
        """Why no further epoch is to be trained, or ""."""
        p, options = self.progress, self.options
        if p.epoch >= options.epochs:
            return "epochs"
        if options.patience is not None and epochs_since_best(p.valid_scores) >= options.patience:
            return "patience"
        return ""

    def _reason_to_pause(self) -> str:
        """Why no further step is to be taken, or ""."""
        options = self.options
        if self.stop_requested():
            return "signal"
        if options.max_steps is not None and self.progress.step >= options.max_steps:
            return "max_steps"
        if options.max_minutes is not None and time.monotonic() - self._started >= 60 * options.max_minutes:
            return "max_minutes"
        return ""

    def _train_epoch(self) -> str:
        """Train to the epoch's end, or to a reason to pause, which is returned."""
        p, options = self.progress, self.options
        learning_rate = options.learning_rate_of(p.epoch, p.valid_scores)
        last_reading = last_save = time.monotonic()
        reason = ""
        with self._progress_bar() as bar, closing(self._prepared_windows()) as prepared:
            for inputs, targets, masks in prepared:
                if reason := self._reason_to_pause():
                    break
                loss, self.state = self.model.train_step(
                    inputs, targets, self.state, masks, learning_rate, options.weight_decay, options.max_grad_norm
                )
                self._unread.append((loss, self.model.last_grad_norm))
                p.window += 1
                p.step += 1
                if time.monotonic() - last_reading >= SECONDS_BETWEEN_READINGS:
                    self._read_losses(bar)
                    p.seconds += time.monotonic() - last_reading
                    last_reading = time.monotonic()
                if time.monotonic() - last_save >= 60 * options.checkpoint_minutes:
                    self._read_losses(bar)
                    self._save_last()
                    last_save = time.monotonic()
            self._read_losses(bar)
            p.seconds += time.monotonic() - last_reading
        return reason

    def _finish_epoch(self) -> None:
        """Score, save, and make ready for the next epoch."""
        p, options, level = self.progress, self.options, self.corpus.level
        with self._averaged_weights():
            valid, test = (
                evaluate(self.model, tokens, level, batch_size=options.batch_size, bptt_length=options.bptt_length)
                for tokens in (self.corpus.valid, self.corpus.test)
            )
            steps, window_tokens = len(self.windows), options.batch_size * options.bptt_length
            row = {
                "epoch": p.epoch + 1,
                "step": p.step,
                "learning_rate": options.learning_rate_of(p.epoch, p.valid_scores),
                "train_nats": p.loss_sum / (steps * options.bptt_length),
                "valid_nats": valid.nats,
                "test_nats": test.nats,
                "valid_tokens": valid.tokens,
                "test_tokens": test.tokens,
                "gradient_norm": p.norm_sum / steps,
                "tokens_per_second": steps * window_tokens / p.seconds,
                "seconds": p.seconds,
                "waiting_seconds": p.waiting_seconds,
            }
            p.history.append(row)
            p.epoch, p.window, p.loss_sum, p.norm_sum = p.epoch + 1, 0, 0.0, 0.0
            p.seconds = p.waiting_seconds = 0.0
            self.state = self.model.zero_state(options.batch_size)  # the stream starts anew
            if epochs_since_best(p.valid_scores) == 0:
                self.save_best()
        if options.average_after is not None and averaging_is_due(p.valid_scores, options.average_after):
            optimizer_state = self.model.optimizer_state()
            self.model.load_optimizer_state({"averaged_steps": np.array(0), **optimizer_state})
        self._save_last()
        self.on_epoch(row)

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """Score and save with the mean of the weights, if one is kept, and train on with the weights themselves."""
        if self.options.average_after is None:
            yield
            return
        mean = {
            name.removeprefix("average."): value
            for name, value in self.model.optimizer_state().items()
            if name.startswith("average.")
        }
        if not mean:
            yield
            return
        current = self.model.parameters()
        self.model.load_parameters(mean)
        yield
        self.model.load_parameters(current)

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

    def _prepared_windows(self) -> Generator[tuple[NDArray[np.int32], NDArray[np.int32], VariationalMasks], None, None]:
        """Inputs (B, T), targets (B, T) and masks of the windows left, the next made while one is trained on."""
        first_window, first_step = self.progress.window, self.progress.step

        def prepare(window: int) -> tuple[NDArray[np.int32], NDArray[np.int32], VariationalMasks]:
            inputs, targets = self.windows[window]
            step = first_step + window - first_window
            return inputs, targets, sample_masks(self.model.config, inputs, self.options.rates, self.options.seed, step)

        with ThreadPoolExecutor(max_workers=1) as pool:
            coming = [pool.submit(prepare, window) for window in range(first_window, len(self.windows))[:1]]
            for window in range(first_window, len(self.windows)):
                asked = time.monotonic()
                ready = coming.pop().result()
                self.progress.waiting_seconds += time.monotonic() - asked
                if window + 1 < len(self.windows):
                    coming.append(pool.submit(prepare, window + 1))
                yield ready

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
