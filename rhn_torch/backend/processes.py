"""Training of one model in several processes, started by `torchrun`: with NCCL on GPUs, with gloo on CPUs."""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from rhn.processes import ALONE, Processes, ProcessLostError, launched_processes


@dataclass(frozen=True)
class TorchProcesses(Processes):
    """See `rhn.processes.Processes`.

    Attributes:
        local_rank: which of the processes on this machine this one is.
    """

    local_rank: int = 0

    def device(self, device: str | None) -> str | None:
        return f"cuda:{self.local_rank}" if device in (None, "gpu", "cuda") and torch.cuda.is_available() else device

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        own = torch.from_numpy(array.copy())
        parts = [torch.empty_like(own) for _ in range(self.count)]
        _together(dist.all_gather, parts, own)
        return torch.stack(parts).numpy()

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum of every tensor over the processes, the same bits in all of them: one all-reduce for all tensors."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])  # (N,)
        _together(dist.all_reduce, flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def join_processes(device: str | None) -> Processes:
    """See `rhn.processes.ParallelBackend`: what `torchrun` says in the environment; `device` makes no difference."""
    count = launched_processes("torch")
    if count == 1:
        return ALONE
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group()  # NCCL and gloo together: gloo gathers arrays in the host's memory
        atexit.register(dist.destroy_process_group)
    return TorchProcesses(dist.get_rank(), count, shares=count, local_rank=int(os.environ.get("LOCAL_RANK", "0")))


def _together(collective: Any, *tensors: Any) -> None:
    try:
        collective(*tensors)
    except RuntimeError as error:
        raise ProcessLostError from error
