"""A training that takes no time, for tests of what starts trainings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rhn.training.run.folder import RunFolder


class Pretence:
    """A training that takes no time: its score is what its learning rate says.

    Args:
        ends: by the number of a trial, what is raised instead after its first check.
        checks: validation scores of each trial.
    """

    def __init__(self, ends: Mapping[int, BaseException] | None = None, checks: int = 2) -> None:
        self.ends, self.checks = dict(ends or {}), checks
        self.trained: list[tuple[int, bool]] = []  # number of the trial, and whether it was resumed

    def __call__(
        self, backend: str, values: Mapping[str, Any], given: Mapping[str, Any], log_scalar: Callable
    ) -> float:
        folder = RunFolder(Path(values["runs_path"]) / values["run"])
        self.trained.append((int(values["run"]), values["resume"] is not None))
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.write_json("options.json", {**values, "resume": None})
        metrics = folder.path / "metrics.jsonl"
        history = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
        for epoch in range(len(history) + 1, self.checks + 1):
            nats = 1 + values["learning_rate"] / epoch
            history.append(row(epoch, nats))
            folder.write_metrics(history)
            log_scalar("valid_nats", nats, epoch)
            if int(values["run"]) in self.ends:
                break
        if int(values["run"]) in self.ends:
            raise self.ends[int(values["run"])]
        return 0.0


def row(epoch: int, nats: float) -> dict[str, Any]:
    numbers = dict.fromkeys(("learning_rate", "train_nats", "test_nats", "gradient_norm", "tokens_per_second"), 1.0)
    return {"epoch": epoch, "step": 10 * epoch, "seconds": 30.0, "valid_nats": nats, **numbers}
