"""Several processes train one model, started by torchrun; that they compute what one does, the suite says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from cases import make_case, relative_error

import rhn
from rhn.training.options import DEFAULTS
from rhn.training.train import train as train_model
from rhn_torch.backend import TorchBackend
from rhn_torch.parallel import TorchProcesses

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
TRAIN = ("-m", "rhn_torch.train", "with")
LOST = "error: another process of this training has ended, so this one ends too; continue with resume=runs/parts"


def train_alone(**words: Any) -> None:
    train_model("torch", {**DEFAULTS, **words}, words, lambda name, value, step: None)


def train_as_two(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"), *TRAIN, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def children(process: subprocess.Popen[str]) -> list[int]:
    task = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return sorted(int(pid) for pid in task.read_text().split())


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="how processes are found is Linux's")
def test_begun_by_one_killed_as_two_resumed_by_one_ends_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of one process throughout, but for the rounding of sums in another order."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("pack my box with five dozen liquor jugs.\n" * 7)
    train_alone(**OPTIONS, data_path="text.txt", run="parts", max_steps=5)
    last = Path("runs/parts/last.safetensors")
    before = last.stat().st_mtime_ns

    process = train_as_two(tmp_path, "resume=runs/parts", "max_steps=None")
    while last.stat().st_mtime_ns == before and process.poll() is None:
        time.sleep(0.02)
    os.kill(children(process)[-1], signal.SIGKILL)
    said = process.communicate(timeout=60)[0]  # within a minute
    assert process.returncode == 1
    assert said.count(LOST) == 1, said
    assert "shared by 2 processes" in said

    end = rhn.load_checkpoint(last)[1]["progress"]["step"] + 7
    assert end > 12
    train_alone(resume="runs/parts", max_steps=end)
    train_alone(**OPTIONS, data_path="text.txt", run="whole", max_steps=end)
    ours, theirs = (rhn.load_checkpoint(f"runs/{name}/last.safetensors")[0] for name in ("parts", "whole"))
    assert ours.keys() == theirs.keys()
    assert max(relative_error(ours[name], theirs[name]) for name in ours) < 1e-9


@pytest.fixture
def collectives(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is sent: name and number of elements. The two processes have the same rows, so that sums are doubles."""
    sent: list[tuple[str, int]] = []

    def all_reduce(tensor: torch.Tensor) -> None:
        sent.append(("all_reduce", tensor.numel()))
        tensor *= 2

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    for name in ("all_gather", "broadcast", "barrier"):
        monkeypatch.setattr(dist, name, lambda *arguments, name=name: sent.append((name, 0)))
    return sent


def test_a_step_sends_once_gradients_and_loss(collectives: list[tuple[str, int]]) -> None:
    case = make_case()
    processes = TorchProcesses(rank=0, count=2, shares=2)
    model = TorchBackend().build(case.config, case.parameters, "float64", "cpu", processes=processes)
    alone = TorchBackend().build(case.config, case.parameters, "float64", "cpu")
    window = case.tokens, case.targets, case.state, case.masks
    for number in range(1, 4):
        losses: list[Any] = [m.train_step(*window, 0.5, 0.01, 0.7)[0] for m in (model, alone)]
        assert collectives == [("all_reduce", 1 + model.parameter_count)] * number
        np.testing.assert_allclose(*losses, rtol=1e-15)
    for name, value in alone.parameters().items():
        assert relative_error(model.parameters()[name], value) < 1e-14
    collectives.clear()
    model.evaluate_step(*window)
    model.log_likelihoods(*window)
    model.forward(case.tokens)
    assert collectives == []
