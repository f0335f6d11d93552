"""Whole training steps as CUDA graphs: one call of the driver in place of thousands of kernel launches.

A graph replays kernels on the addresses at which they were captured. So everything that a step reads or changes stays
where it is: its inputs are copied into buffers, and parameters and what the optimiser remembers change in place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rhn.spec.masks import NO_MASKS, VariationalMasks

StepResults = tuple[Tensor, list[Tensor], Tensor]  # loss (), state per layer (B, H), norm ()
# Of (tokens, targets, state, masks, learning_rate, weight_decay, max_grad_norm): tensors on the device but for the last
# two, which are numbers; the learning rate is () and float64.
TrainStep = Callable[..., StepResults]


class Window(NamedTuple):
    """Every tensor that a training step takes."""

    tokens: Tensor  # (B, T)
    targets: Tensor  # (B, T)
    state: tuple[Tensor, ...]  # per layer (B, H)
    masks: VariationalMasks
    learning_rate: Tensor  # ()

    def map(self, function: Callable[[Tensor], Any]) -> Any:
        """The same structure of what `function` makes of every tensor, one after the other."""
        return Window(
            function(self.tokens),
            function(self.targets),
            tuple(map(function, self.state)),
            _map_masks(function, self.masks),
            function(self.learning_rate),
        )

    def tensors(self) -> list[Tensor]:
        """All of them, in the order of `map`."""
        found: list[Tensor] = []
        self.map(found.append)
        return found


class StaticSteps:
    """Training steps on buffers that never move; on a GPU as CUDA graphs, one per shape of the window and its masks.

    Results are those of `step`, and new tensors every time. Nothing waits for the device.

    Args:
        step: what a training step does. Besides its arguments it may read and change, in place, what outlives this.
        dtype: of states and masks.
        device: of all tensors.
    """

    def __init__(self, step: TrainStep, dtype: torch.dtype, device: torch.device) -> None:
        self._step = step
        self._dtype = dtype
        self._device = device
        self._recorder = recorder_on(device)
        self._steps: dict[Any, _StaticStep] = {}

    def __call__(
        self,
        tokens: Tensor,
        targets: Tensor,
        state: Sequence[Tensor],
        masks: VariationalMasks | None,
        learning_rate: float,
        weight_decay: float,
        max_grad_norm: float,
    ) -> StepResults:
        """Loss, state and norm; takes tensors from any device, and masks from NumPy too."""
        mask_tensors = _map_masks(lambda mask: torch.as_tensor(mask, dtype=self._dtype), masks or NO_MASKS)
        rate = torch.tensor(learning_rate, dtype=torch.float64)
        window = Window(tokens, targets, tuple(state), mask_tensors, rate)
        key = (window.map(lambda tensor: tensor.shape), weight_decay, max_grad_norm)
        if key not in self._steps:
            step = functools.partial(self._step, weight_decay=weight_decay, max_grad_norm=max_grad_norm)
            self._steps[key] = _StaticStep(step, window, self._device, self._recorder)
        return self._steps[key](window)


class _StaticStep:
    """Training steps of one shape.

    On a GPU the first runs as it is, which initialises every library that it needs; the second is captured, and from
    then on replayed. Every one counts: nothing is run for warming up only, and a shape that comes once has no graph.
    """

    def __init__(self, step: TrainStep, window: Window, device: torch.device, recorder: CudaRecorder | None) -> None:
        self._buffers = window.map(lambda tensor: torch.empty_like(tensor, device=device))
        self._step = functools.partial(step, *self._buffers)
        self._recorder = recorder
        self._is_warm = False
        self._replay: Callable[[], StepResults] | None = None

    def __call__(self, window: Window) -> StepResults:
        for buffer, value in zip(self._buffers.tensors(), window.tensors(), strict=True):
            # From pinned memory the host need not wait; its allocator keeps the memory until it has been read.
            in_reach = value.pin_memory() if buffer.is_cuda and not value.is_cuda else value
            buffer.copy_(in_reach, non_blocking=True)
        loss, state, norm = self._run()
        return loss.clone(), [s.clone() for s in state], norm.clone()

    def _run(self) -> StepResults:
        if self._recorder is None:
            return self._step()
        if not self._is_warm:
            self._is_warm = True
            return self._recorder.warm_up(self._step)
        if self._replay is None:
            self._replay = self._recorder.capture(self._step)
        return self._replay()


class CudaRecorder:
    """Captures functions as CUDA graphs, all on one stream and in shared memory.

    Sharing it is safe for functions of which no two run at a time, and whose results are copied before another runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, function: Callable[[], StepResults]) -> StepResults:
        """Run it on the stream of the captures: some libraries keep a workspace for every stream."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            results = function()
        current.wait_stream(self._stream)
        return results

    def capture(self, function: Callable[[], StepResults]) -> Callable[[], StepResults]:
        """What does the same as `function`, into the same results every time. Nothing has been computed yet."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, self._pool, self._stream):
            results = function()

        def replay() -> StepResults:
            graph.replay()
            return results

        return replay


def recorder_on(device: torch.device) -> CudaRecorder | None:
    """None where there is nothing to gain."""
    return CudaRecorder(device) if device.type == "cuda" else None


def _map_masks(function: Callable[[Any], Any], masks: VariationalMasks) -> VariationalMasks:
    """Masks of what `function` makes of every single one."""

    def apply(mask: Any) -> Any:
        if mask is None:
            return None
        return tuple(map(function, mask)) if isinstance(mask, list | tuple) else function(mask)

    return VariationalMasks(*map(apply, masks))
