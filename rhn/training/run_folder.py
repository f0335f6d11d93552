"""What a run leaves on disk, every file written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rhn.spec.checkpoint import save_checkpoint, write_atomically
from rhn.training.options import OptionError

STATE_PREFIX = "state."  # of the carried state's tensors in a checkpoint, beside the parameters


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    `options.json` what was asked for; `metrics.jsonl` one row per epoch; `best.safetensors` the checkpoint with the
    best validation score; `last.safetensors` the newest; `summary.json` the final figures; `curves.png`; `sample.txt`.
    """

    path: Path

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.path / "last.safetensors"

    def write_json(self, name: str, value: Any) -> None:
        write_atomically(self.path / name, (json.dumps(value, indent=2) + "\n").encode())

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(row) + "\n" for row in history)
        write_atomically(self.path / "metrics.jsonl", lines.encode())

    def write_text(self, name: str, text: str) -> None:
        write_atomically(self.path / name, text.encode())

    def save(
        self,
        path: Path,
        parameters: Mapping[str, NDArray],
        metadata: Mapping[str, Any],
        state: list[NDArray] | None = None,
    ) -> None:
        """Write a checkpoint, with the carried state (B, H) per layer if it is one to go on from."""
        carried = {f"{STATE_PREFIX}{i}": s for i, s in enumerate(state or [])}
        save_checkpoint(path, {**parameters, **carried}, metadata)


def create_run_folder(runs_path: str, run: str | None, label: str) -> RunFolder:
    """A new, empty folder: `runs_path/run`, or one named by `label` and the time.

    Raises:
        OptionError: it exists with something in it, or cannot be made.
    """
    path = Path(runs_path) / (run or f"{label}-{datetime.now():%Y%m%d-%H%M%S}")
    for number in range(2, 1000):
        if run is not None or not path.exists():
            break
        path = path.with_name(f"{path.name.split('.')[0]}.{number}")  # two runs within a second
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise OptionError(f"run={run!r} is not accepted: {path} is not empty; choose another name")
    except OSError as error:
        raise OptionError(
            f"runs_path={runs_path!r} is not accepted: {path} cannot be made ({error.strerror})"
        ) from error
    return RunFolder(path)
