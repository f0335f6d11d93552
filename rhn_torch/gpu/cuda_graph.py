"""Whole training steps as CUDA graphs: one call of the driver in place of thousands of kernel launches.

A graph replays kernels on the addresses at which they were captured. So everything that a step reads or changes stays
where it is: its inputs are copied into buffers, and parameters and what the optimiser remembers change in place.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rhn.port_tools import NO_REGULARIZATION, Regularization, Window

StepResults = tuple[Tensor, list[Tensor], Tensor]  # loss (), state per layer (B, H), norm ()
# Of (window, learning_rate, weight_decay, max_grad_norm, regularization): tensors on the device, but for the last
# three, which are numbers; the learning rate is () and float64.
TrainStep = Callable[[Window, Tensor, float, float, Regularization], StepResults]


class StepInputs(NamedTuple):
    """Every tensor that a training step takes."""

    window: Window
    learning_rate: Tensor  # ()

    def map(self, function: Callable[[Tensor], Any]) -> StepInputs:
        """The same structure of what `function` makes of every tensor, one after the other."""
        tokens, targets, state, masks, length = self.window
        window = Window(
            function(tokens),
            function(targets),
            [function(s) for s in state],
            masks.map(function),
            None if length is None else function(length),
        )
        return StepInputs(window, function(self.learning_rate))

    def tensors(self) -> list[Tensor]:
        """All of them, in the order of `map`."""
        found: list[Tensor] = []
        self.map(found.append)
        return found

    def form(self) -> tuple[Any, ...]:
        """The same for two windows if and only if all their shapes are, and both have the same kinds of masks."""
        kinds = tuple(part is not None for part in (*self.window.masks, self.window.length))
        return kinds, tuple(tensor.shape for tensor in self.tensors())


class StaticSteps:
    """Training steps on buffers that never move; on a GPU as CUDA graphs, one per form of the window and its masks.

    Results are those of the step itself, and new tensors every time. Nothing waits for the device.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._recorder = recorder_on(device)
        self._steps: dict[Any, _StaticStep] = {}

    def __call__(
        self,
        step: TrainStep,
        window: Window,
        learning_rate: float,
        weight_decay: float,
        max_grad_norm: float,
        regularization: Regularization = NO_REGULARIZATION,
    ) -> StepResults:
        """Loss, state and norm of `step`, always the same one, which is not kept.

        Besides its arguments it may read and change, in place, what outlives this object.
        """
        inputs = StepInputs(window, torch.tensor(learning_rate, dtype=torch.float64))
        numbers = weight_decay, max_grad_norm, regularization
        key = (inputs.form(), numbers)
        if key not in self._steps:
            self._steps[key] = _StaticStep(inputs, self._device, self._recorder)
        return self._steps[key](step, inputs, *numbers)


class _StaticStep:
    """Training steps of one form.

    On a GPU the first runs as it is, which initialises every library that it needs; the second is captured, and from
    then on replayed. Every one counts: nothing is run for warming up only, and a form that comes once has no graph.
    """

    def __init__(self, inputs: StepInputs, device: torch.device, recorder: CudaRecorder | None) -> None:
        self._buffers = inputs.map(lambda tensor: torch.empty_like(tensor, device=device))
        self._recorder = recorder
        self._is_warm = False
        self._replay: Callable[[], StepResults] | None = None

    def __call__(
        self,
        step: TrainStep,
        inputs: StepInputs,
        weight_decay: float,
        max_grad_norm: float,
        regularization: Regularization,
    ) -> StepResults:
        for buffer, value in zip(self._buffers.tensors(), inputs.tensors(), strict=True):
            # From pinned memory the host need not wait; its allocator keeps the memory until it has been read.
            in_reach = value.pin_memory() if buffer.is_cuda and not value.is_cuda else value
            buffer.copy_(in_reach, non_blocking=True)
        loss, state, norm = self._run(lambda: step(*self._buffers, weight_decay, max_grad_norm, regularization))
        return loss.clone(), [s.clone() for s in state], norm.clone()

    def _run(self, step: Callable[[], StepResults]) -> StepResults:
        if self._recorder is None:
            return step()
        if not self._is_warm:
            self._is_warm = True
            return self._recorder.warm_up(step)
        if self._replay is None:
            try:
                self._replay = self._recorder.capture(step)
            except RuntimeError as error:  # as nothing has been computed yet, the step can be taken as it is
                warnings.warn(f"a training step could not be captured as a CUDA graph: {error}", stacklevel=2)
                self._recorder = None
                return step()
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
        """What does the same as `function`, into the same results every time. Nothing has been computed yet.

        What other threads do on the GPU meanwhile does not disturb it.

        Raises:
            RuntimeError: it cannot be captured.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            results = function()

        def replay() -> StepResults:
            graph.replay()
            return results

        return replay


def recorder_on(device: torch.device) -> CudaRecorder | None:
    """None where there is nothing to gain."""
    return CudaRecorder(device) if device.type == "cuda" else None
