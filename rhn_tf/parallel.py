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

from rhn.processes import ALONE, Processes, ProcessLostError
from rhn.spec.arguments import refusal

# What a collective operation fails with when one of its processes is gone.
_LOST = (
    *(tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError),
    *(tf.errors.DeadlineExceededError, tf.errors.FailedPreconditionError),
)


@dataclass(frozen=True)
class TensorFlowProcesses(Processes):
    """See `rhn.processes.Processes`.

    Attributes:
        strategy: of all processes, of each one device. It only reduces: the model's variables are not in its scope,
            where Keras would divide losses and average gradients.
    """

    strategy: tf.distribute.Strategy = None  # there always is one

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        # The sum of arrays that are zero but for one row each, as integers: every bit stays what it is.
        own = np.ascontiguousarray(array).tobytes()
        rows = np.zeros((self.count, -(-len(own) // 8)), np.int64)
        rows[self.rank].view(np.uint8)[: len(own)] = np.frombuffer(own, np.uint8)
        with lost_processes():
            parts = self._sum_of_integers(tf.constant(rows)).numpy()  # (count, 64-bit words)
        return np.stack([part.view(np.uint8)[: len(own)].view(array.dtype).reshape(array.shape) for part in parts])

    def sum(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The sum of every tensor over the processes, the same bits in all of them: one all-reduce for all tensors.

        To be called in a `tf.function`, but not in one that XLA compiles: it has no collectives on a CPU.
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
            with tf.device(device):  # the strategy takes no tensor of which it does not know where it is
                placed = tf.identity(tensor)
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, placed)

        return self.strategy.run(reduce)


@contextmanager
def lost_processes() -> Iterator[None]:
    """Within it, a collective operation that fails tells of a process that has ended.

    Raises:
        ProcessLostError: there was one.
    """
    try:
        yield
    except _LOST as error:
        raise ProcessLostError from error


def join_processes(device: str | None) -> Processes:
    """See `rhn.processes.ParallelBackend`: what `TF_CONFIG` says in the environment; with `device` "cpu", no GPUs.

    Raises:
        ValueError: this process sees several GPUs.
    """
    tasks = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec().as_dict()
    if sum(map(len, tasks.values())) < 2:
        return ALONE
    strategy = _join(device == "cpu")
    return TensorFlowProcesses(_rank(strategy), strategy.num_replicas_in_sync, strategy.num_replicas_in_sync, strategy)


@cache
def _join(only_cpu: bool) -> tf.distribute.Strategy:
    """A strategy: TensorFlow knows the other processes once it is made, and it can be made but once."""
    gpus = tf.config.list_physical_devices("GPU")
    if only_cpu:
        tf.config.set_visible_devices([], "GPU")
    elif len(gpus) > 1:
        raise refusal("CUDA_VISIBLE_DEVICES", f"{len(gpus)} GPUs", "one GPU for each of several processes")
    return tf.distribute.MultiWorkerMirroredStrategy()


def _rank(strategy: tf.distribute.Strategy) -> int:
    @tf.function
    def ask() -> tf.Tensor:
        return strategy.run(lambda: tf.distribute.get_replica_context().replica_id_in_sync_group)

    return int(ask())
