"""Windows and their masks, made by several threads while a model is trained."""

from __future__ import annotations

import random
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import rhn
from rhn.training import loop
from rhn.training.loop import Trainer
from rhn.training.options import Options
from rhn.training.run.progress import Progress
from rhn_datasets import windows

CONFIG = rhn.RHNConfig(vocab_size=11, hidden_size=4, recurrence_depth=1)
RATES = rhn.DropRates(0.25, 0.75, 0.25, 0.75)


@pytest.mark.parametrize("first", [0, 4, 8, 9])
def test_windows_and_masks_are_those_of_one_thread(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever thread is ready first. The run was resumed in the middle of its second epoch."""
    delays = random.Random(first)

    def late(*arguments: Any, **options: Any) -> rhn.VariationalMasks:
        time.sleep(delays.random() / 100)
        return rhn.sample_masks(*arguments, **options)

    monkeypatch.setattr(loop, "sample_masks", late)
    cut = windows(np.arange(92, dtype=np.int32) % 11, 2, 5, drop_last=True)
    trainer: Any = object.__new__(Trainer)
    trainer.windows, trainer.progress = cut, Progress(epoch=1, window=first, step=9 + first)
    trainer.model, trainer.rows = SimpleNamespace(config=CONFIG), slice(None)
    trainer.plan = SimpleNamespace(rates=RATES, options=Options(seed=3))

    prepared = list(trainer._prepared_windows())
    assert len(prepared) == len(cut) - first == 9 - first
    for window, (inputs, targets, masks, length) in enumerate(prepared, start=first):
        assert length == inputs.shape[1]
        assert np.array_equal(inputs, cut[window][0])
        assert np.array_equal(targets, cut[window][1])
        expected = rhn.sample_masks(CONFIG, inputs, RATES, 3, 9 + window)
        assert masks.map(np.ndarray.tobytes) == expected.map(np.ndarray.tobytes)
    assert trainer.progress.waiting_seconds > 0 or not prepared
