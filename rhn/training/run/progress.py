"""Where a run stands: plain values that a checkpoint stores, and that are checked when they are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rhn.spec.arguments import check_integer, check_number, refusal

_MOST = 2**53  # beyond it, not every integer is a float
_COUNTS = ("epoch", "step")
_MEASURED = (  # of a finished epoch; a run that diverged has some that are not finite
    *("learning_rate", "train_nats", "valid_nats", "test_nats"),
    *("gradient_norm", "tokens_per_second", "seconds", "waiting_seconds"),
)


@dataclass
class Progress:
    """Where a run stands; all of it is JSON."""

    epoch: int = 0  # the current epoch, counted from 0
    window: int = 0  # the next window of this epoch
    step: int = 0  # training steps taken
    loss_sum: float = 0.0  # sum of the losses since the last check
    norm_sum: float = 0.0  # sum of the gradient norms since the last check
    seconds: float = 0.0  # training time since the last check
    waiting_seconds: float = (
        0.0  # part of it spent waiting for the next window; a GPU works on meanwhile, so waits less
    )
    history: list[dict[str, Any]] = field(default_factory=list)  # one row per check: per epoch, or `evaluate_steps`

    @property
    def valid_scores(self) -> list[float]:
        """Validation score of every check, in nats."""
        return [row["valid_nats"] for row in self.history]

    @property
    def steps_since_check(self) -> int:
        """Training steps since the last check, or since the start."""
        return self.step - (self.history[-1]["step"] if self.history else 0)

    @classmethod
    def from_json(cls, values: Any) -> Progress:
        """The inverse of `dataclasses.asdict`.

        Raises:
            ValueError: `values` cannot be the progress of a run.
        """
        names = [each.name for each in dataclasses.fields(cls)]
        if not isinstance(values, Mapping) or sorted(values) != sorted(names):
            raise refusal("progress", values, f"names and values, {', '.join(names)}")
        for name in ("epoch", "window", "step"):
            _check_count(name, values[name])
        for name in ("loss_sum", "norm_sum", "seconds", "waiting_seconds"):
            value = values[name]
            check_number(name, abs(value) if isinstance(value, int | float) else value, zero=True)
        if values["window"] > values["step"]:
            raise refusal("window", values["window"], f"at most the {values['step']} steps that were taken")
        history = values["history"]
        if not isinstance(history, list):
            raise ValueError("history is not accepted: expected a list of rows")
        epoch = step = 0
        for number, row in enumerate(history, start=1):
            _check_row(row, number)
            if not epoch <= row["epoch"] <= values["epoch"] + 1:
                raise refusal("epoch", row["epoch"], f"{epoch} to {values['epoch'] + 1} in row {number} of the history")
            if not step < row["step"] <= values["step"]:
                raise refusal("step", row["step"], f"{step + 1} to {values['step']} in row {number} of the history")
            epoch, step = row["epoch"], row["step"]
        return cls(**values)


def _check_row(row: Any, number: int) -> None:
    """Raise ValueError unless `row`, number `number` of the history, is the row of a check."""
    if not isinstance(row, Mapping):
        raise ValueError(f"row {number} of the history is not accepted: expected names and values")
    missing = [name for name in (*_COUNTS, *_MEASURED) if name not in row]
    if missing:
        raise ValueError(f"row {number} of the history lacks {', '.join(missing)}")
    for name in _COUNTS:
        _check_count(name, row[name])
    for name in _MEASURED:
        if isinstance(row[name], bool) or not isinstance(row[name], int | float):
            raise refusal(name, row[name], "a number")
        if isinstance(row[name], int) and abs(row[name]) > _MOST:
            raise refusal(name, row[name], "a number that is a float")


def _check_count(name: str, value: Any) -> None:
    if check_integer(name, value, 0) > _MOST:
        raise refusal(name, value, f"an integer of at most {_MOST}")
