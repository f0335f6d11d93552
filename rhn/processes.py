"""The processes that train one model together, each on its rows of the batch (SPEC.md 9.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rhn.spec.arguments import refusal


class ProcessLostError(RuntimeError):
    """Another of the processes that work together has ended, so that this one cannot go on."""

    def __init__(self, message: str = "another process of this run has ended, so this one ends too") -> None:
        super().__init__(message)


@dataclass(frozen=True)
class Processes:
    """The processes of a training, as one of them sees them. As it stands this is a process alone; ports inherit.

    Attributes:
        rank: which of them this one is, from 0. The first writes and speaks for all.
        count: how many there are.
        shares: into how many parts a batch is cut, a multiple of `count`: a process may have several devices.
    """

    rank: int = 0
    count: int = 1
    shares: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    @property
    def shared_by(self) -> str:
        """Who has shares of a batch."""
        return f"{self.count} processes" if self.shares == self.count else f"{self.shares} devices"

    def device(self, device: str | None) -> str | None:
        """`device`, but where it leaves open which device of its kind, that of this process."""
        return device

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        """(count, *shape): the arrays of all processes, equal in shape and dtype, in the order of their ranks.

        Every process must call it, and waits for the others.

        Raises:
            ProcessLostError: another one has ended.
        """
        return array[np.newaxis]

    def gather_rows(self, rows: NDArray[Any]) -> NDArray[Any]:
        """(B, ...): the rows of the whole batch from the rows (B / count, ...) of every process; see `gather`."""
        return np.concatenate(list(self.gather(rows)))

    def agree(self, value: float) -> float:
        """The number that the first process has; see `gather`."""
        return float(self.gather(np.array(value, np.float64))[0])

    def rows(self, batch_size: int) -> slice:
        """Which rows of a batch are those of this process.

        Raises:
            ValueError: the batch cannot be cut into equal shares.
        """
        if batch_size % self.shares:
            raise refusal("batch_size", batch_size, f"a multiple of {self.shares}, for {self.shared_by} share it")
        own = batch_size // self.count
        return slice(self.rank * own, (self.rank + 1) * own)


ALONE = Processes()


@runtime_checkable
class ParallelBackend(Protocol):
    """What a backend may also do: train one model in several processes, started as its framework's users start them."""

    def join_processes(self, device: str | None) -> Processes:
        """The processes that were started together with this one, once all of them are there; else `ALONE`.

        `device` is that of `build`.
        """
        ...


def join_processes(backend: Any, device: str | None = None) -> Processes:
    """Those of a `ParallelBackend`; any other backend is alone."""
    return backend.join_processes(device) if isinstance(backend, ParallelBackend) else ALONE
