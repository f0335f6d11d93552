"""Several processes decide at the same steps, and alike; a process alone decides at every step."""

from __future__ import annotations

import pytest
from threads import Threads, in_threads

from rhn.processes import ALONE
from rhn.training import joint_decisions
from rhn.training.joint_decisions import Meetings


def test_a_process_alone_gets_every_wish() -> None:
    decisions = Meetings(ALONE)
    assert [decisions.decide(step, step == 2, True) for step in (1, 2, 2)] == [
        *[(False, True), (True, True), (True, True)]
    ]


@pytest.mark.parametrize("who", [0, 1])
def test_two_processes_stop_at_the_same_step(who: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever has to, though they do not meet at every step."""
    monkeypatch.setattr(joint_decisions, "SECONDS_BETWEEN_MEETINGS", 1e3)

    def train(threads: Threads) -> tuple[int, int]:
        decisions = Meetings(threads)
        met = 0
        for step in range(7, 10**6):
            before = decisions.decide(step, threads.rank == who and step >= 150)
            after = decisions.decide(step + 1, step >= 40)
            met += after[0]
            if before[0]:
                return step, met
        raise AssertionError("nobody has stopped")

    (stopped, met), other = in_threads(2, train)
    assert other == (stopped, met)
    assert 150 <= stopped <= 300
    assert 1 <= met <= 4  # each interval is twice the one before
