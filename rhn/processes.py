"""Several processes that train one model together, each on its rows of the batch (SPEC.md 9.1)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rhn.spec.arguments import refusal

# The environment variables in which launchers say how many processes they have started, for the backends that ask them.
_LAUNCHERS = {
    "torch": ("WORLD_SIZE",),
    "jax": ("JAX_NUM_PROCESSES", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"),
    "tf": ("TF_CONFIG",),
}


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


def launched_processes(backend: str) -> int:
    """How many processes work together, as their launcher says in the environment; nothing waits for the others.

    Args:
        backend: name of the backend; one that knows no launcher is always alone.

    Raises:
        ValueError: the environment says something else than a number of processes.
    """
    return max((_count(variable) for variable in _LAUNCHERS.get(backend, ())), default=1)


def check_alone(backend: str, command: str) -> None:
    """Check that no launcher has started several processes: each of them would do and write the same.

    Raises:
        ValueError: a launcher has.
    """
    for variable in _LAUNCHERS.get(backend, ()):
        if (count := _count(variable)) > 1:
            raise ValueError(
                f"{command} runs in one process, but {variable} says that {count} work together: start it without the"
                f" launcher, or unset {variable}"
            )


def _count(variable: str) -> int:
    text = os.environ.get(variable)
    if not text:
        return 1
    try:
        if variable == "TF_CONFIG":
            return max(sum(map(len, json.loads(text).get("cluster", {}).values())), 1)
        return int(text)
    except (ValueError, TypeError, AttributeError) as error:
        wanted = "the addresses of all processes as JSON" if variable == "TF_CONFIG" else "a number of processes"
        raise refusal(variable, text, wanted) from error
