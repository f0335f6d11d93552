"""Training of one model on several devices (a mesh) and in several processes (`jax.distributed`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.errors import JaxRuntimeError
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from rhn.port_tools import Window
from rhn.processes import ALONE, Processes, ProcessLostError, launched_processes
from rhn.spec.masks import VariationalMasks

_SECONDS = 30  # after which a process that sends nothing counts as lost
# Errors of the devices that no other process causes: not enough memory, and what cannot be compiled.
_OF_THIS_PROCESS = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNIMPLEMENTED")
_ROWS = PartitionSpec("rows")  # batch first
_ROWS_SECOND = PartitionSpec(None, "rows")  # gates first
_MASKS = VariationalMasks(_ROWS, _ROWS_SECOND, _ROWS_SECOND, _ROWS, update=_ROWS, carried=_ROWS)
_ALL = PartitionSpec()  # the same everywhere


@dataclass(frozen=True)
class JaxProcesses(Processes):
    """See `rhn.processes.Processes`.

    Attributes:
        mesh: of all devices, process by process, its one axis named "rows".
    """

    mesh: Mesh = None  # there always is one

    @property
    def everywhere(self) -> NamedSharding:
        """Where the parameters are: on every device."""
        return NamedSharding(self.mesh, _ALL)

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        if self.count == 1:
            return array[np.newaxis]
        # As bytes: JAX would round float64 where it is set to float32.
        own = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        with lost_processes():
            parts = np.asarray(multihost_utils.process_allgather(own))  # (count, bytes)
        return np.stack([np.frombuffer(part.tobytes(), array.dtype).reshape(array.shape) for part in parts])

    def cut(self, window: Window) -> Window:
        """The window of the whole batch, its rows on the devices, from the rows of this process."""

        def place(spec: PartitionSpec, own: Any) -> Any:
            if own is None or isinstance(own, Array):  # a state that the step before has returned
                return own
            return jax.make_array_from_process_local_data(NamedSharding(self.mesh, spec), own)

        tokens, targets, state, masks, length = window
        own_state = [place(_ROWS, s) for s in state]
        return Window(place(_ROWS, tokens), place(_ROWS, targets), own_state, _by_kind(place, masks), length)

    def own_rows(self, array: Array) -> NDArray[Any]:
        """This process's rows of an array that `cut` or a step has distributed by rows; a replicated array whole."""
        if array.is_fully_addressable or array.is_fully_replicated:
            return np.array(array, order="C")
        shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start)
        return np.concatenate([np.array(shard.data) for shard in shards])


@contextmanager
def lost_processes() -> Iterator[None]:
    """Within it, an error of the devices means that another process has ended.

    Raises:
        ProcessLostError: there was one.
    """
    try:
        yield
    except (JaxRuntimeError, ValueError) as error:
        # On CPUs a failure of Gloo that is noticed late, when a result is read, is a ValueError.
        is_other_value = isinstance(error, ValueError) and "Gloo" not in str(error)
        if is_other_value or str(error).startswith(_OF_THIS_PROCESS):
            raise
        raise ProcessLostError from error


def sum_over_rows(mesh: Mesh, function: Callable[[Any, Window], Any], params: Any, window: Window) -> Any:
    """Loss, state and gradients of `function` for all rows of the window, computed from the rows of each device.

    One all-reduce sums loss and gradients.
    """

    def of_own_rows(params: Any, window: Window) -> Any:
        loss, new_state, gradients = function(params, window)
        flat, restore = ravel_pytree((loss, gradients))  # (N,)
        loss, gradients = restore(jax.lax.psum(flat, "rows"))
        return loss, new_state, gradients

    masks = _by_kind(lambda spec, mask: spec, window.masks)
    rows = Window(_ROWS, _ROWS, [_ROWS for _ in window.state], masks, None if window.length is None else _ALL)
    return jax.shard_map(of_own_rows, mesh=mesh, in_specs=(_ALL, rows), out_specs=(_ALL, _ROWS, _ALL), check_vma=False)(
        params, window
    )


def join_processes(device: str | None) -> Processes:
    """See `rhn.processes.ParallelBackend`. With `device` "all", every device of this process takes part, too.

    Slurm's and Open MPI's launchers say how many processes there are. Elsewhere the environment does:
    JAX_NUM_PROCESSES, JAX_PROCESS_ID and JAX_COORDINATOR_ADDRESS, which is `host:port` of process 0.
    """
    if not jax.distributed.is_initialized():
        if int(os.environ.get("JAX_NUM_PROCESSES", "1")) > 1:
            numbers = {key: int(os.environ[f"JAX_{key.upper()}"]) for key in ("num_processes", "process_id")}
            jax.distributed.initialize(**numbers, heartbeat_timeout_seconds=_SECONDS)  # reads the address itself
        elif launched_processes("jax") > 1:  # by Slurm or Open MPI, from which JAX learns the rest
            jax.distributed.initialize(heartbeat_timeout_seconds=_SECONDS)
    count = jax.process_count()
    if count == 1 and device != "all":
        return ALONE
    devices = jax.devices(None if device in (None, "all") else device)
    return JaxProcesses(jax.process_index(), count, len(devices), Mesh(np.array(devices), ("rows",)))


def _by_kind(function: Callable[[PartitionSpec, Any], Any], masks: VariationalMasks | None) -> VariationalMasks | None:
    """Apply `function` to each mask and the way in which its rows are distributed."""
    if masks is None:
        return None

    def of(spec: PartitionSpec, mask: Any) -> Any:
        if mask is None:
            return None
        return [function(spec, m) for m in mask] if isinstance(mask, list) else function(spec, mask)

    return VariationalMasks(*(of(spec, mask) for spec, mask in zip(_MASKS, masks, strict=True)))
