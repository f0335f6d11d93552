"""Several processes decide at the same steps, and alike; a process alone decides at every step."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rhn.processes import ALONE, Processes
from rhn.training import meetings
from rhn.training.meetings import Meetings


@dataclass(frozen=True)
class Threads(Processes):
    """Processes that are threads of this one."""

    arrays: list[Any] = field(default_factory=list)
    barrier: threading.Barrier | None = None

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        assert self.barrier is not None
        self.arrays[self.rank] = array
        self.barrier.wait(timeout=20)
        met = np.stack(self.arrays)
        self.barrier.wait(timeout=20)
        return met


def test_a_process_alone_gets_every_wish() -> None:
    decisions = Meetings(ALONE)
    assert [decisions.decide(step, step == 2, True) for step in (1, 2, 2)] == [
        *[(False, True), (True, True), (True, True)]
    ]


@pytest.mark.parametrize("who", [0, 1])
def test_two_processes_stop_at_the_same_step(who: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever has to, though they do not meet at every step."""
    monkeypatch.setattr(meetings, "SECONDS_BETWEEN_MEETINGS", 1e3)
    arrays, barrier = [None, None], threading.Barrier(2)

    def train(rank: int) -> tuple[int, int]:
        decisions = Meetings(Threads(rank, 2, 2, arrays, barrier))
        met = 0
        for step in range(7, 10**6):
            before = decisions.decide(step, rank == who and step >= 150)
            after = decisions.decide(step + 1, step >= 40)
            met += after[0]
            if before[0]:
                return step, met
        raise AssertionError("nobody has stopped")

    with ThreadPoolExecutor(2) as pool:
        (stopped, met), other = pool.map(train, (0, 1))
    assert other == (stopped, met)
    assert 150 <= stopped <= 300
    assert 1 <= met <= 4  # each interval is twice the one before
