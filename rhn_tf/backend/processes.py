"""Several processes that train one model, as `TF_CONFIG` names them: NCCL between GPUs, gRPC between CPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from rhn.processes import ALONE, Processes, ProcessLostError, launched_processes
from rhn.spec.arguments import refusal

# Errors of a collective operation when one of its processes has ended.
_LOST = (
    *(tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError),
    *(tf.errors.DeadlineExceededError, tf.errors.FailedPreconditionError),
)


@dataclass(frozen=True)
class TensorFlowProcesses(Processes):
    """See `rhn.processes.Processes`.

    Attributes:
        strategy: of all processes, with one device of each. It only sums. The variables of the model are outside of
            its scope, so that neither TensorFlow nor Keras averages anything.
    """

    strategy: tf.distribute.Strategy = None  # there always is one

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        # A sum of integers, to which each process adds its own row and zeros: no bit changes.
        own = np.ascontiguousarray(array).tobytes()
        rows = np.zeros((self.count, -(-len(own) // 8)), np.int64)
        rows[self.rank].view(np.uint8)[: len(own)] = np.frombuffer(own, np.uint8)
        with lost_processes():
            parts = self._sum_of_integers(tf.constant(rows)).numpy()  # (count, 64-bit words)
        return np.stack([part.view(np.uint8)[: len(own)].view(array.dtype).reshape(array.shape) for part in parts])

    def sum(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The sum of every tensor over the processes, the same bits in all of them: one all-reduce for all tensors.

        It must be called in a `tf.function`, but not in one that XLA compiles: XLA has no collectives on a CPU.
        """
        flat = tf.concat([tf.reshape(tensor, (-1,)) for tensor in tensors], axis=0)  # (N,)
        parts = tf.split(self._all_reduce(flat), [tensor.shape.num_elements() for tensor in tensors])
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    @cached_property
    def _sum_of_integers(self) -> Any:
        return tf.function(self._all_reduce, reduce_retracing=True)

    def _all_reduce(self, tensor: tf.Tensor) -> tf.Tensor:
        (device,) = self.strategy.extended.worker_devices

        def reduce() -> tf.Tensor:
            with tf.device(device):  # the strategy refuses a tensor without a device
                placed = tf.identity(tensor)
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, placed)

        return self.strategy.run(reduce)


@contextmanager
def lost_processes() -> Iterator[None]:
    """Within it, a collective operation that fails means that another process has ended.

    Raises:
        ProcessLostError: there was one.
    """
    try:
        yield
    except _LOST as error:
        raise ProcessLostError from error


def join_processes(device: str | None) -> Processes:
    """See `rhn.processes.ParallelBackend`: what `TF_CONFIG` says in the environment; `device` makes no difference.

    Raises:
        ValueError: this process sees several GPUs.
    """
    if launched_processes("tf") == 1:
        return ALONE
    strategy = _strategy()
    count = strategy.num_replicas_in_sync
    return TensorFlowProcesses(_rank(strategy), count, shares=count, strategy=strategy)


@cache
def _strategy() -> tf.distribute.Strategy:
    """TensorFlow can make one only once in a process, and connects to the other processes then."""
    gpus = tf.config.list_physical_devices("GPU")
    if len(gpus) > 1:
        raise refusal("CUDA_VISIBLE_DEVICES", f"{len(gpus)} GPUs", "one GPU for each of several processes")
    return tf.distribute.MultiWorkerMirroredStrategy()


def _rank(strategy: tf.distribute.Strategy) -> int:
    @tf.function
    def ask() -> tf.Tensor:
        return strategy.run(lambda: tf.distribute.get_replica_context().replica_id_in_sync_group)

    return int(ask())
