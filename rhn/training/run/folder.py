"""What a run leaves on disk, every file written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rhn.checkpoint import save_checkpoint
from rhn.files import write_atomically
from rhn.training.options import OptionError

# Prefixes of the tensors that stand beside the parameters in a checkpoint.
_STATE = "state."
_OPTIMIZER = "optimizer."


@dataclass(frozen=True)
class Checkpoint:
    """The arrays that a checkpoint holds: parameters, and what a run needs to go on from there."""

    parameters: Mapping[str, NDArray]
    state: Sequence[NDArray] = ()  # carried, per layer (B, H)
    optimizer_state: Mapping[str, NDArray] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    `options.json` what was asked for; `environment.json` on what it ran; `metrics.jsonl` one row per epoch;
    `best.safetensors` the checkpoint with the best validation score; `last.safetensors` the newest; at the end
    `summary.json` the final figures, `sample.txt`; and `report.html` to look at.
    """

    path: Path

    @property
    def options(self) -> Path:
        return self.path / "options.json"

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.path / "last.safetensors"

    def read_options(self) -> dict[str, Any]:
        return json.loads(self.options.read_text())

    def write_json(self, name: str, value: Any) -> None:
        write_atomically(self.path / name, (json.dumps(value, indent=2) + "\n").encode())

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(row) + "\n" for row in history)
        write_atomically(self.path / "metrics.jsonl", lines.encode())

    def write_text(self, name: str, text: str) -> None:
        write_atomically(self.path / name, text.encode())

    def save(self, path: Path, checkpoint: Checkpoint, metadata: Mapping[str, Any]) -> None:
        """Write a checkpoint whose tensors `split_checkpoint` tells apart again."""
        tensors = dict(checkpoint.parameters)
        tensors.update({f"{_STATE}{i}": s for i, s in enumerate(checkpoint.state)})
        tensors.update({f"{_OPTIMIZER}{name}": value for name, value in checkpoint.optimizer_state.items()})
        save_checkpoint(path, tensors, metadata)


def split_checkpoint(tensors: Mapping[str, NDArray]) -> Checkpoint:
    """The tensors of a checkpoint file by what they are."""
    state, optimizer_state, parameters = {}, {}, {}
    for name, value in tensors.items():
        if name.startswith(_STATE):
            state[int(name.removeprefix(_STATE))] = value
        elif name.startswith(_OPTIMIZER):
            optimizer_state[name.removeprefix(_OPTIMIZER)] = value
        else:
            parameters[name] = value
    return Checkpoint(parameters, [state[i] for i in sorted(state)], optimizer_state)


def open_run_folder(path: str) -> RunFolder:
    """The folder of an earlier run; OptionError if it is none."""
    folder = RunFolder(Path(path))
    if not folder.options.is_file():
        raise OptionError(f"resume={path!r} is not accepted: expected the folder of a run, with its options.json")
    return folder


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
