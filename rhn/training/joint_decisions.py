"""Decisions of several processes: when they act together on a signal or a time limit that one of them has noticed."""

from __future__ import annotations

import time

import numpy as np

from rhn.processes import Processes

SECONDS_BETWEEN_MEETINGS = 1.0  # a meeting waits for the slowest process, and its device


class Meetings:
    """Makes all processes of a run decide the same at the same step; otherwise one would wait for another for ever.

    A single process decides at every step. Several processes meet only at some steps, about a second apart. At each
    meeting the first process says how many steps there are to the next one.

    Args:
        processes: the processes of the run.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._newest = self._next = -1  # steps
        self._interval = 1  # steps
        self._met = time.monotonic()

    def decide(self, step: int, *wishes: bool) -> tuple[bool, ...]:
        """Which wishes are granted at `step`, in all processes: at a meeting, the wishes of any process; else none.

        Every process calls it at the same steps, with the same number of wishes.
        """
        if self._processes.count == 1:
            return wishes
        if self._newest < step < self._next:
            return (False,) * len(wishes)
        if step >= self._next:
            self._interval = self._steps_to_the_next()
        met = self._processes.gather(np.array([self._interval, *wishes], np.int64))  # (P, 1 + wishes)
        if step >= self._next:
            self._newest, self._next = step, step + int(met[0, 0])
        return tuple(bool(met[:, column].any()) for column in range(1, 1 + len(wishes)))

    def _steps_to_the_next(self) -> int:
        seconds, self._met = time.monotonic() - self._met, time.monotonic()
        wanted = int(self._interval * SECONDS_BETWEEN_MEETINGS / max(seconds, 1e-3))
        return min(max(wanted, 1), 2 * self._interval)
