"""Several processes that train one model together, each on its rows of the batch (SPEC.md 9.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rhn.spec.arguments import refusal


class ProcessLostError(RuntimeError):
    """Another of the processes that work together has ended, so that this one cannot continue."""

    def __init__(self, message: str = "another process of this run has ended, so this one ends too") -> None:
        super().__init__(message)


@dataclass(frozen=True)
class Processes:
    """The processes of a training, as one of them sees them. This class is for a single process; ports inherit from it.

    Attributes:
        rank: number of this process, from 0. Process 0 writes and prints for all.
        count: number of processes.
        shares: number of parts into which a batch is cut, a multiple of `count`: a process may have several devices.
    """

    rank: int = 0
    count: int = 1
    shares: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @property
    def shared_by(self) -> str:
        """The processes or devices among which a batch is shared, in words."""
        return f"{self.count} processes" if self.shares == self.count else f"{self.shares} devices"

    def device(self, device: str | None) -> str | None:
        """`device`; if it does not say which device of its kind, the device of this process."""
        return device

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        """(count, *shape): the arrays of all processes, equal in shape and dtype, in the order of their ranks.

        Every process must call it, and waits for the others.

        Raises:
            ProcessLostError: another process has ended.
        """
        return array[np.newaxis]

    def gather_rows(self, rows: NDArray[Any]) -> NDArray[Any]:
        """(B, ...): the rows of the whole batch from the rows (B / count, ...) of every process; see `gather`."""
        return np.concatenate(list(self.gather(rows)))

    def agree(self, value: float) -> float:
        """The value of the first process; see `gather`."""
        return float(self.gather(np.array(value, np.float64))[0])

    def rows(self, batch_size: int) -> slice:
        """The rows of a batch that belong to this process.

        Raises:
            ValueError: the batch cannot be cut into equal shares.
        """
        if batch_size % self.shares:
            raise refusal("batch_size", batch_size, f"a multiple of {self.shares}, because {self.shared_by} share it")
        own = batch_size // self.count
        return slice(self.rank * own, (self.rank + 1) * own)


ALONE = Processes()


@runtime_checkable
class ParallelBackend(Protocol):
    """An optional ability of a backend: train one model in several processes, started by the framework's launcher."""

    def join_processes(self, device: str | None) -> Processes:
        """Wait for all processes that were started together with this one, and return them; `ALONE` if there are none.

        `device` has the meaning that it has in `build`.
        """
        ...


def join_processes(backend: Any, device: str | None = None) -> Processes:
    """The processes of a `ParallelBackend`; `ALONE` for any other backend."""
    return backend.join_processes(device) if isinstance(backend, ParallelBackend) else ALONE
