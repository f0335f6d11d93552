"""Truncated backpropagation through time for any `rhn.Model`, which can stop and continue after any step.

A run is a pure function of its options: masks depend on the number of the training step. `Progress`, the carried state,
the parameters and the optimiser state are all that is needed to continue it.
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
from rhn.training.evaluate.stream import evaluate
from rhn.training.joint_decisions import Meetings
from rhn.training.options.accepted import LARGEST_WEIGHT
from rhn.training.options.plan import Plan
from rhn.training.run.progress import Progress
from rhn.training.schedules import averaging_is_due, epochs_since_best
from rhn.training.score import UNITS, in_units
from rhn.training.terminal.console import Progress as ShownProgress
from rhn.training.terminal.console import shown_progress, warn
from rhn.training.variable_windows import VariableWindows, padded
from rhn_datasets import Corpus, windows
from rhn_datasets.batching import Windows

# Windows that are prepared while another is trained on, each by its own thread: NumPy draws outside of Python's lock.
WINDOWS_AHEAD = 2
SECONDS_BETWEEN_READINGS = 1.0  # reading a loss waits for the device, so it is done at most this often
HOPELESS = 3.0  # a loss of this many times the loss of guessing among all symbols has exploded

PreparedWindow = tuple[NDArray[np.int32], NDArray[np.int32], VariationalMasks, int]


class DivergedError(ArithmeticError):
    """The loss is no longer finite, or has exploded."""


class Run(Protocol):
    """What a trainer reports to; `rhn.training.run.saving.SavedRun` keeps it on disk."""

    def save_last(self, checkpoint: Checkpoint) -> None:
        """Called when the run can continue from here."""
        ...

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Called when the validation score has improved."""
        ...

    def note_epoch(self, row: dict[str, Any]) -> None:
        """Called after a validation, at the end of an epoch or within it; `row` is the newest of `Progress.history`."""
        ...

    def stop_requested(self) -> bool:
        """Whether to stop before the next step."""
        ...


class Trainer:
    """Trains a model from `progress` on.

    Args:
        model: trained in place.
        corpus: its training part is learned; the other two parts are scored, in batches, at every check.
        plan: the plan of the run.
        progress: where the run stands; changed in place. A new run starts from `Progress()`.
        run: is told what happens.
        state: the carried state that belongs to `progress`, per layer (B, H); empty at the start of an epoch.
        processes: the processes that train the model together; each has its own trainer.
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

    @np.errstate(all="ignore")  # a loss that overflows raises DivergedError
    def train(self) -> str:
        """Train until there is a reason to stop, save everything, and return the reason: "epochs", "patience",
        "max_steps", "max_minutes" or "signal".

        Raises:
            DivergedError: the loss is not finite, or was above `HOPELESS` times guessing over a whole epoch.
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
        """The reason to train no further epoch, or ""."""
        p, o = self.progress, self.plan.options
        if p.epoch >= o.epochs:
            return "epochs"
        if o.patience is not None and epochs_since_best(p.valid_scores) >= o.patience:
            return "patience"
        return ""

    def _reason_to_pause(self) -> str:
        """The reason to take no further step, or ""."""
        o = self.plan.options
        is_late = o.max_minutes is not None and time.monotonic() - self._started >= 60 * o.max_minutes
        stops, is_late = self._meetings.decide(self.progress.step, self.run.stop_requested(), is_late)
        if stops:
            return "signal"
        if o.max_steps is not None and self.progress.step >= o.max_steps:
            return "max_steps"
        return "max_minutes" if is_late else ""

    def _check_is_due(self) -> bool:
        """Whether to score the model now: after every epoch, or every `evaluate_steps` steps and after the last one."""
        p, every = self.progress, self.plan.options.evaluate_steps
        is_over = p.window == len(self.windows)
        if every is None or (is_over and p.epoch + 1 == self.plan.options.epochs):
            return is_over
        return p.steps_since_check > 0 and p.step % every == 0

    def _train_epoch(self) -> str:
        """Train to the end of the epoch, to the next check, or until there is a reason to pause, which is returned."""
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
                    if not self._has_exploded:  # keep the newest checkpoint a good one
                        self._save_last()
                    last_save = time.monotonic()
            self._read_losses(shown)
            p.seconds += time.monotonic() - last_reading
        return reason

    def _start_epoch(self) -> None:
        """Go back to the start of the text, with a zero state."""
        self.progress.epoch, self.progress.window = self.progress.epoch + 1, 0
        self.windows = self._cut_epoch()
        self.state = self._zero_state()

    def _cut_epoch(self) -> Windows | VariableWindows:
        """The windows of the current epoch."""
        p, o = self.progress, self.plan.options
        fixed = windows(self.corpus.train, o.batch_size, o.bptt_length, drop_last=True)
        if o.bptt_jitter is None:
            return fixed
        return VariableWindows(fixed.rows, o.seed, p.step - p.window, o.bptt_length, o.bptt_jitter)

    def _check(self, epoch_is_over: bool) -> None:
        """Score the model, save, and prepare the next epoch if this one is over."""
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
                "valid_nats": self.processes.agree(valid.nats),  # later decisions depend on it
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
        """Within this context, the model has the averaged weights, if there are any; after it, its own weights."""
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
        """Read the losses from the device and add them to the record; DivergedError if one is not finite."""
        p, o = self.progress, self.plan.options
        for i, (device_loss, device_norm, length) in enumerate(self._unread):
            loss, norm = float(self.model.to_numpy(device_loss)), float(self.model.to_numpy(device_norm))
            if length != o.bptt_length:
                loss *= o.bptt_length / length  # the loss of a window of the usual length
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
        """Save the newest checkpoint; DivergedError if no run could continue from it."""
        parameters = self.model.parameters()
        largest = max(float(np.abs(value).max()) for value in parameters.values())
        if not largest <= LARGEST_WEIGHT:  # true for nan as well
            raise DivergedError(f"weights as large as {largest:.3g} after step {self.progress.step}")
        state = [self.processes.gather_rows(self.model.to_numpy(s)) for s in self.state]  # (B, H) per layer
        self.run.save_last(Checkpoint(parameters, state, self.model.optimizer_state()))

    def _zero_state(self) -> Any:
        return self.model.zero_state(self.rows.stop - self.rows.start)

    def _prepared_windows(self) -> Generator[PreparedWindow, None, None]:
        """Inputs (b, T), targets (b, T), masks and length of each window left in this epoch, for the b rows of this
        process. The next windows are prepared while one is trained on."""
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
