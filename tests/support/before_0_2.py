"""Checkpoints and half-finished runs of version 0.1 load, score to the same digits and resume to the same weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import rhn
from rhn.training.evaluate.stream import evaluate_checkpoint
from rhn.training.options import DEFAULTS
from rhn.training.train import train

DATA = Path(__file__).parents[1] / "data" / "before_0_2"

# Measured by the command itself: 0 on the machine that made the files; on another processor, which sums in another
# order, 3e-16 (PyTorch), 1.4e-15 (TensorFlow) and 2.5e-15 (JAX). Within pytest TensorFlow and JAX differ by less than
# this; by how much was not recorded.
TOLERANCE = 1e-9


def check_runs_of_version_0_1(
    backend: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it, for one backend, in a folder of the test's own."""
    shutil.copytree(DATA / backend, folder / "run")
    shutil.copy(DATA / "small.txt", folder)
    monkeypatch.chdir(folder)  # the run names its text by a relative path

    given = {"checkpoint": "run/resumed-best.safetensors", "progress": False}
    evaluate_checkpoint(backend, {**DEFAULTS, **given}, given)
    printed = [line.strip() for line in capsys.readouterr().out.splitlines()[1:]]
    assert printed == (DATA / backend / "scores.txt").read_text().splitlines()

    given = {"resume": "run", "max_steps": None}
    train(backend, {**DEFAULTS, **given}, given, lambda name, value, step: None)
    for name in ("last", "best"):
        ours, _ = rhn.load_checkpoint(folder / "run" / f"{name}.safetensors")
        theirs, _ = rhn.load_checkpoint(folder / "run" / f"resumed{'-best' if name == 'best' else ''}.safetensors")
        assert ours.keys() == theirs.keys()
        for tensor in ours:
            np.testing.assert_allclose(ours[tensor], theirs[tensor], rtol=0, atol=TOLERANCE, err_msg=tensor)
