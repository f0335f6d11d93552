"""Processes that work together and are threads of this one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rhn.processes import Processes


@dataclass(frozen=True)
class Threads(Processes):
    """As one of the threads sees them."""

    arrays: list[Any] = field(default_factory=list)
    barrier: threading.Barrier | None = None

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        assert self.barrier is not None
        self.arrays[self.rank] = array
        self.barrier.wait(timeout=20)
        met = np.stack(self.arrays)
        self.barrier.wait(timeout=20)
        return met


def in_threads(count: int, work: Callable[[Threads], Any]) -> list[Any]:
    """What `work` returns in each of `count` threads."""
    arrays, barrier = [None] * count, threading.Barrier(count)
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda rank: work(Threads(rank, count, count, arrays, barrier)), range(count)))
