"""Several processes train one model, started by torchrun; that they compute what one does, the suite says."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from cases import make_case, relative_error
from two_processes import OPTIONS, Process, check_killed_as_two_resumed_by_one, start, train_alone

import rhn
from rhn_torch.backend import TorchBackend
from rhn_torch.backend.processes import TorchProcesses


def start_with_torchrun(words: Sequence[str]) -> tuple[Callable[[], object], Process]:
    launcher = start(
        ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "rhn_torch.train", *words], {}
    )

    def kill() -> None:
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        os.kill(max(map(int, children)), signal.SIGKILL)

    return kill, launcher


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="how processes are found is Linux's")
def test_begun_by_one_killed_as_two_resumed_by_one_ends_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_killed_as_two_resumed_by_one("torch", start_with_torchrun, tmp_path, monkeypatch) == 1


def test_two_processes_share_the_samples_of_evaluate_mc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one alone prints and writes, and so do its observers."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("pack my box with five dozen liquor jugs.\n" * 7)
    train_alone("torch", **OPTIONS, data_path="text.txt", run="run", max_steps=20, drop_state=0.3)
    options = "checkpoint=runs/run/last.safetensors progress=False mc_samples=5 mc_rows=2"

    def sample(launcher: str, name: str) -> str:
        words = f"{launcher} rhn_torch.train evaluate_mc -F {name} with {options} mc_file={name}.safetensors"
        return start(words.split(), {}).communicate(timeout=120)[0].replace(name, "samples")

    assert sample("torch.distributed.run --standalone --nproc-per-node=2 -m", "two") == sample("", "one")
    two, one = (rhn.load_checkpoint(f"{name}.safetensors")[0] for name in ("two", "one"))
    assert len(one["running_nats"]) == 5
    assert max(relative_error(two[name], one[name]) for name in one) < 1e-12  # measured: 0
    assert [file.name for file in Path("two").iterdir() if file.name.isdigit()] == ["1"]


def test_a_command_that_works_alone_is_refused_under_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    process = start_with_torchrun(["generate", "with", "checkpoint=model.safetensors"])[1]
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 1, said
    assert "error: generate runs in one process, but WORLD_SIZE says that 2 work together" in said
    assert not list(tmp_path.iterdir())


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
        assert losses[0] == losses[1]  # halved and doubled: no bit changes
    for name, value in alone.parameters().items():
        np.testing.assert_array_equal(model.parameters()[name], value)
    collectives.clear()
    model.evaluate_step(*window)
    model.log_likelihoods(*window)
    model.forward(case.tokens)
    assert collectives == []
