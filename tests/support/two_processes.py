"""A run that one process begins, that two train on until one of them is killed, and that one process ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from cases import relative_error

import rhn
from rhn.training.options import DEFAULTS
from rhn.training.train import train as train_model

OPTIONS: dict[str, Any] = {
    "dataset": "text",
    "dtype": "float64",
    "preflight": False,
    "progress": False,
    "checkpoint_minutes": 1e-9,
    "hidden_size": 6,
    "recurrence_depth": 2,
    "batch_size": 4,
    "bptt_length": 5,
    "epochs": 1000,
    "seed": 3,
    "optimizer": "adam",
    "learning_rate": 0.01,
    "weight_decay": 1e-3,
    "max_grad_norm": 1.0,
}
LOST = "error: another process of this run has ended, so this one ends too; continue with resume=runs/parts"

Process = subprocess.Popen[str]


def check_killed_as_two_resumed_by_one(
    backend: str,
    start: Callable[[Sequence[str]], tuple[Callable[[], object], Process]],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    instead: str | None = None,
) -> int:
    """The weights at the end are those of one process throughout, but for the rounding of sums in another order.

    Args:
        backend: that trains.
        start: starts two processes with the words of a command line: what kills one of them, and who then tells of it.
        folder: to work in.
        monkeypatch: of the test.
        instead: what the one who tells of it may say in place of our sentence, where docs/several_gpus.md says so.

    Returns:
        The exit status of whoever told of it.
    """
    monkeypatch.chdir(folder)
    Path("text.txt").write_text("pack my box with five dozen liquor jugs.\n" * 7)
    train_alone(backend, **OPTIONS, data_path="text.txt", run="parts", max_steps=5)
    last = Path("runs/parts/last.safetensors")
    before = last.stat().st_mtime_ns

    kill, survivor = start(("with", "resume=runs/parts", "max_steps=None"))
    # A new checkpoint: both train, and have met. However slow the machine is, this comes or they end.
    while last.stat().st_mtime_ns == before and survivor.poll() is None:
        time.sleep(0.02)
    kill()
    said = survivor.communicate(timeout=60)[0]  # within a minute
    assert said.count(LOST) == 1 or (instead is not None and instead in said), said
    assert "shared by 2 processes" in said

    end = rhn.load_checkpoint(last)[1]["progress"]["step"] + 7
    assert end > 12
    train_alone(backend, resume="runs/parts", max_steps=end)
    train_alone(backend, **OPTIONS, data_path="text.txt", run="whole", max_steps=end)
    ours, theirs = (rhn.load_checkpoint(f"runs/{name}/last.safetensors")[0] for name in ("parts", "whole"))
    assert ours.keys() == theirs.keys()
    # How many steps there are depends on the machine. Measured: at most 7e-16 after 14.
    assert max(relative_error(ours[name], theirs[name]) for name in ours) < 1e-9
    return survivor.returncode


def start_each(
    backend: str, words: Sequence[str], environments: Sequence[Mapping[str, str]]
) -> tuple[Callable[[], object], Process]:
    """Two processes of `python -m rhn_<backend>.train`, each in its environment: the second is the one to be killed."""
    first, second = (start([f"rhn_{backend}.train", *words], environment) for environment in environments)
    return second.kill, first


def start(module_and_words: Sequence[str], environment: Mapping[str, str]) -> Process:
    """`python -m`, on the CPU."""
    return subprocess.Popen(
        [sys.executable, "-m", *module_and_words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_address() -> str:
    """`host:port` at which nobody listens."""
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return f"localhost:{listening.getsockname()[1]}"


def train_alone(backend: str, **words: Any) -> None:
    """The command `train`, in this process."""
    train_model(backend, {**DEFAULTS, **words}, words, lambda name, value, step: None)
