"""Truncated backpropagation through time, over any `rhn.Model`, so that it can stop and continue anywhere.

A run is a pure function of its options: masks are keyed by the number of the training step. `Progress`, the carried
state and the parameters alone say where it stands.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rhn.backend import Model
from rhn.checkpoint import Checkpoint
from rhn.processes import ALONE, Processes
from rhn.spec.masks import VariationalMasks, sample_masks
from rhn.training.accepted import LARGEST_WEIGHT
from rhn.training.console import Progress as ShownProgress
from rhn.training.console import shown_progress, warn
from rhn.training.evaluate.stream import evaluate
from rhn.training.meetings import Meetings
from rhn.training.plan import Plan
from rhn.training.run.progress import Progress
from rhn.training.schedules import averaging_is_due, epochs_since_best
from rhn.training.score import UNITS, in_units
from rhn.training.variable_windows import VariableWindows, padded
from rhn_datasets import Corpus, windows
from rhn_datasets.batching import Windows

# That are made while one is trained on, each by a thread of its own: NumPy draws outside of Python's lock.
WINDOWS_AHEAD = 2
SECONDS_BETWEEN_READINGS = 1.0  # reading a loss waits for the device, so it is done at most this often
HOPELESS = 3.0  # a loss of so many times that of guessing among all symbols has exploded

PreparedWindow = tuple[NDArray[np.int32], NDArray[np.int32], VariationalMasks, int]


class DivergedError(ArithmeticError):
    """The loss is no longer finite, or has exploded."""


class Run(Protocol):
    """What a trainer tells of itself; `rhn.training.run.saved.SavedRun` keeps it on disk."""

    def save_last(self, checkpoint: Checkpoint) -> None:
        """The run can continue from here."""
        ...

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Validation has improved."""
        ...

    def note_epoch(self, row: dict[str, Any]) -> None:
        """There was a check, after an epoch or within one; the row is the newest of `Progress.history`."""
        ...

    def stop_requested(self) -> bool:
        """Whether to stop before the next step."""
        ...


class Trainer:
    """Trains a model from `progress` on.

    Args:
        model: to be trained, in place.
        corpus: its training part is learned, the other two are scored at every check, batched.
        plan: how.
        progress: where the run stands; a fresh one for a new run. Changed in place.
        run: is told what happens.
        state: the carried state that belongs to `progress`, per layer (B, H); none at the start of an epoch.
        processes: that train the model together; every one of them has a trainer.
    """

    def __init__(
        self,
        model: Model,
        corpus: Corpus,
        plan: Plan,
        progress: Progress,
        run: Run,
        state: Sequence[NDArray] = (),
        processes: Processes = ALONE,
    ) -> None:
        self.model = model
        self.corpus = corpus
        self.plan = plan
        self.progress = progress
        self.run = run
        o = plan.options
        self.windows = self._cut_epoch()
        self.processes = processes
        self.rows = processes.rows(o.batch_size)  # of the batch, that this process trains on
        self.state: Any = [s[self.rows] for s in state] or self._zero_state()
        self._meetings = Meetings(processes)
        self._unread: list[tuple[Any, Any, int]] = []  # (loss, gradient norm, length) per step, still on the device
        self._started = time.monotonic()
        self._hopeless_loss = HOPELESS * math.log(max(model.config.vocab_size, 2))  # nats per token

    @np.errstate(all="ignore")  # a loss that overflows gets a sentence of its own
    def train(self) -> str:
        """Train until there is a reason to stop, which is returned: "epochs", "patience", "max_steps", "max_minutes"
        or "signal". Everything is saved then.

        Raises:
            DivergedError: the loss is not finite, or was hopeless for a whole epoch.
        """
        while not (reason := self._reason_to_finish()):
            if reason := self._train_epoch():
                self._save_last()
                return reason
            is_over = self.progress.window == len(self.windows)
            if self._check_is_due():
                self._check(is_over)
            elif is_over:
                self._start_epoch()
        return reason

    def _reason_to_finish(self) -> str:
        """Why no further epoch is to be trained, or ""."""
        p, o = self.progress, self.plan.options
        if p.epoch >= o.epochs:
            return "epochs"
        if o.patience is not None and epochs_since_best(p.valid_scores) >= o.patience:
            return "patience"
        return ""

    def _reason_to_pause(self) -> str:
        """Why no further step is to be taken, or ""."""
        o = self.plan.options
        is_late = o.max_minutes is not None and time.monotonic() - self._started >= 60 * o.max_minutes
        stops, is_late = self._meetings.decide(self.progress.step, self.run.stop_requested(), is_late)
        if stops:
            return "signal"
        if o.max_steps is not None and self.progress.step >= o.max_steps:
            return "max_steps"
        return "max_minutes" if is_late else ""

    def _check_is_due(self) -> bool:
        """Whether to score the model here: after every epoch, or every `evaluate_steps` steps and after the last."""
        p, every = self.progress, self.plan.options.evaluate_steps
        is_over = p.window == len(self.windows)
        if every is None or (is_over and p.epoch + 1 == self.plan.options.epochs):
            return is_over
        return p.steps_since_check > 0 and p.step % every == 0

    def _train_epoch(self) -> str:
        """Train to the epoch's end, to the next check, or to a reason to pause, which is returned."""
        p, o = self.progress, self.plan.options
        learning_rate = self.plan.learning_rate(p.epoch, p.valid_scores)
        extras = self.plan.extras_of(self.model)
        last_reading = last_save = time.monotonic()
        reason = ""
        with self._shown_progress() as shown, closing(self._prepared_windows()) as prepared:
            for inputs, targets, masks, length in prepared:
                if self._check_is_due() or (reason := self._reason_to_pause()):
                    break
                rate = learning_rate
                if o.bptt_jitter is not None:
                    extras["length"], rate = length, learning_rate * length / o.bptt_length
                loss, self.state = self.model.train_step(
                    inputs, targets, self.state, masks, rate, o.weight_decay, o.max_grad_norm, **extras
                )
                self._unread.append((loss, self.model.last_grad_norm, length))
                p.window += 1
                p.step += 1
                reads, saves = self._meetings.decide(
                    p.step,
                    time.monotonic() - last_reading >= SECONDS_BETWEEN_READINGS,
                    time.monotonic() - last_save >= 60 * o.checkpoint_minutes,
                )
                if reads:
                    self._read_losses(shown)
                    p.seconds += time.monotonic() - last_reading
                    last_reading = time.monotonic()
                if saves:
                    self._read_losses(shown)
                    if not self._has_exploded:  # the newest checkpoint is to be a good one
                        self._save_last()
                    last_save = time.monotonic()
            self._read_losses(shown)
            p.seconds += time.monotonic() - last_reading
        return reason

    def _start_epoch(self) -> None:
        """The stream starts anew."""
        self.progress.epoch, self.progress.window = self.progress.epoch + 1, 0
        self.windows = self._cut_epoch()
        self.state = self._zero_state()

    def _cut_epoch(self) -> Windows | VariableWindows:
        """The windows of the epoch in work."""
        p, o = self.progress, self.plan.options
        fixed = windows(self.corpus.train, o.batch_size, o.bptt_length, drop_last=True)
        if o.bptt_jitter is None:
            return fixed
        return VariableWindows(fixed.rows, o.seed, p.step - p.window, o.bptt_length, o.bptt_jitter)

    def _check(self, epoch_is_over: bool) -> None:
        """Score, save, and make ready for what follows."""
        p, o = self.progress, self.plan.options
        steps, window_tokens = p.steps_since_check, o.batch_size * o.bptt_length
        train_nats = p.loss_sum / (steps * o.bptt_length)
        if train_nats > self._hopeless_loss:
            raise DivergedError(
                f"mean loss {train_nats:.3g} nats per token at step {p.step} in epoch {p.epoch + 1}, more than"
                f" {HOPELESS:g} times the loss of guessing"
            )
        with self._averaged_weights():
            valid, test = (
                evaluate(self.model, tokens, self.corpus.level, batch_size=o.batch_size, bptt_length=o.bptt_length)
                for tokens in (self.corpus.valid, self.corpus.test)
            )
            row = {
                "epoch": p.epoch + 1,
                "step": p.step,
                "learning_rate": self.plan.learning_rate(p.epoch, p.valid_scores),
                "train_nats": train_nats,
                "valid_nats": self.processes.agree(valid.nats),  # what follows depends on it, to the bit
                "test_nats": test.nats,
                "valid_tokens": valid.tokens,
                "test_tokens": test.tokens,
                "gradient_norm": p.norm_sum / steps,
                "tokens_per_second": steps * window_tokens / p.seconds,
                "seconds": p.seconds,
                "waiting_seconds": p.waiting_seconds,
            }
            if o.evaluate_steps is not None:
                row["epochs_done"] = p.epoch + p.window / len(self.windows)
            p.history.append(row)
            p.loss_sum = p.norm_sum = p.seconds = p.waiting_seconds = 0.0
            if epoch_is_over:
                self._start_epoch()
            if epochs_since_best(p.valid_scores) == 0:
                self.run.save_best(Checkpoint(self.model.parameters()))
        if o.average_after is not None and averaging_is_due(p.valid_scores, o.average_after):
            optimizer_state = self.model.optimizer_state()
            if "averaged_steps" not in optimizer_state:
                self.model.load_optimizer_state({"averaged_steps": np.array(0), **optimizer_state})
        self._save_last()
        self.run.note_epoch(row)

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """Score and save with the mean of the weights, if one is kept, and train on with the weights themselves."""
        if self.plan.options.average_after is None:
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

    def _read_losses(self, shown: ShownProgress) -> None:
        """Bring the losses from the device to the record; DivergedError if one of them is not finite."""
        p, o = self.progress, self.plan.options
        for i, (device_loss, device_norm, length) in enumerate(self._unread):
            loss, norm = float(self.model.to_numpy(device_loss)), float(self.model.to_numpy(device_norm))
            if length != o.bptt_length:
                loss *= o.bptt_length / length  # as of a window of the usual length
            step = p.step - len(self._unread) + i + 1
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise DivergedError(f"loss {loss} with gradient norm {norm} at step {step} (epoch {p.epoch + 1})")
            self._has_exploded = loss / o.bptt_length > self._hopeless_loss
            if self._has_exploded:
                self._warn_once(f"loss {loss / o.bptt_length:.3g} nats per token at step {step}: it has exploded")
            p.loss_sum += loss
            p.norm_sum += norm
        shown.update(len(self._unread) * o.batch_size * o.bptt_length)
        self._unread.clear()
        if p.steps_since_check:
            value = in_units(p.loss_sum / (p.steps_since_check * o.bptt_length), self.corpus.level)
            shown.note(f"{UNITS[self.corpus.level]} {value:.4g}")

    def _warn_once(self, text: str) -> None:
        if not self._has_warned:
            warn(f"{text}; a lower learning_rate or max_grad_norm may help")
        self._has_warned = True

    _has_warned = False
    _has_exploded = False  # the newest loss that was read

    def _save_last(self) -> None:
        """Save where the run stands; DivergedError if that is no place to continue from."""
        parameters = self.model.parameters()
        largest = max(float(np.abs(value).max()) for value in parameters.values())
        if not largest <= LARGEST_WEIGHT:  # nor if it is no number
            raise DivergedError(f"weights as large as {largest:.3g} after step {self.progress.step}")
        state = [self.processes.gather_rows(self.model.to_numpy(s)) for s in self.state]  # (B, H) per layer
        self.run.save_last(Checkpoint(parameters, state, self.model.optimizer_state()))

    def _zero_state(self) -> Any:
        return self.model.zero_state(self.rows.stop - self.rows.start)

    def _prepared_windows(self) -> Generator[PreparedWindow, None, None]:
        """Inputs (b, T), targets (b, T), masks and length of the windows left, of the b rows of this process, the next
        ones made while one is trained on."""
        first_window, first_step, o = self.progress.window, self.progress.step, self.plan.options

        def prepare(window: int) -> PreparedWindow:
            inputs, targets = self.windows[window]
            step = first_step + window - first_window
            masks = sample_masks(
                self.model.config,
                inputs,
                self.plan.rates,
                o.seed,
                step,
                time_masks=o.time_masks,
                reset_probability=o.reset_probability,
            )
            length = inputs.shape[1]
            if o.bptt_jitter is not None:
                inputs, targets, masks = padded(inputs, targets, masks, o.bptt_length, o.bptt_jitter)
            return inputs[self.rows], targets[self.rows], masks.rows(self.rows), length

        left = iter(range(first_window, len(self.windows)))
        with ThreadPoolExecutor(WINDOWS_AHEAD) as pool:
            coming = deque(pool.submit(prepare, window) for window in islice(left, WINDOWS_AHEAD))
            while coming:
                asked = time.monotonic()
                ready = coming.popleft().result()
                self.progress.waiting_seconds += time.monotonic() - asked
                coming.extend(pool.submit(prepare, window) for window in islice(left, 1))
                yield ready

    def _shown_progress(self) -> Any:
        p, o = self.progress, self.plan.options
        window_tokens = o.batch_size * o.bptt_length
        what = f"epoch {p.epoch + 1}/{o.epochs}"
        return shown_progress(what, len(self.windows) * window_tokens, p.window * window_tokens, show=o.progress)
