"""Whole training and evaluation steps as CUDA graphs: one call of the driver instead of thousands of kernel launches.

A graph replays kernels on the addresses at which they were captured. So everything that a step reads or changes must
keep its address: inputs are copied into buffers, and parameters and optimiser state are changed in place.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from rhn.port_tools import Window

# Tensors and lists of them. Of a training step: loss (), state per layer (B, H), norm (); of an evaluation: negative
# log-likelihood (), state.
Results = TypeVar("Results", bound=tuple[Any, ...])


class StepInputs(NamedTuple):
    """Every tensor that a step takes; an evaluation takes no learning rate."""

    window: Window
    learning_rate: Tensor | None  # ()

    def map(self, function: Callable[[Tensor], Any]) -> StepInputs:
        """The same structure, with `function` applied to every tensor in turn."""
        tokens, targets, state, masks, length = self.window
        window = Window(
            function(tokens),
            function(targets),
            [function(s) for s in state],
            masks.map(function),
            None if length is None else function(length),
        )
        return StepInputs(window, None if self.learning_rate is None else function(self.learning_rate))

    def arguments(self) -> tuple[Any, ...]:
        """The arguments that are not None."""
        return (self.window,) if self.learning_rate is None else (self.window, self.learning_rate)

    def tensors(self) -> list[Tensor]:
        """All of them, in the order of `map`."""
        found: list[Tensor] = []
        self.map(found.append)
        return found

    def form(self) -> tuple[Any, ...]:
        """Two steps have the same form if and only if all shapes are equal and both have the same kinds of masks."""
        kinds = tuple(part is not None for part in (*self.window.masks, self.window.length))
        return self.learning_rate is None, kinds, tuple(tensor.shape for tensor in self.tensors())


class StaticSteps:
    """Steps on buffers that never move; on a GPU as CUDA graphs, one per form of the window and its masks.

    Results are equal to the step's own, in new tensors every time. Nothing waits for the device.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._recorder = recorder_on(device)
        self._steps: dict[Any, _StaticStep] = {}

    def __call__(
        self, step: Callable[..., Results], window: Window, learning_rate: float | None = None, *numbers: Any
    ) -> Results:
        """Results of `step`, which is not kept: with (window, learning_rate, *numbers) the training step, with
        (window) the evaluation step. The window and the rate, () and float64, are on the device.

        A step may also read tensors that outlive this object, and change them in place.
        """
        rate = None if learning_rate is None else torch.tensor(learning_rate, dtype=torch.float64)
        inputs = StepInputs(window, rate)
        key = (inputs.form(), numbers)
        if key not in self._steps:
            self._steps[key] = _StaticStep(inputs, self._device, self._recorder)
        return self._steps[key](step, inputs, numbers)


class _StaticStep:
    """Steps of one form.

    On a GPU the first step runs normally, which initialises the libraries; the second is captured, and from
    then on replayed. No step is run for warming up only, and a form that occurs once has no graph.
    """

    def __init__(self, inputs: StepInputs, device: torch.device, recorder: CudaRecorder | None) -> None:
        self._buffers = inputs.map(lambda tensor: torch.empty_like(tensor, device=device))
        self._recorder = recorder
        self._is_warm = False
        self._replay: Callable[[], Any] | None = None

    def __call__(self, step: Callable[..., Results], inputs: StepInputs, numbers: tuple[Any, ...]) -> Results:
        for buffer, value in zip(self._buffers.tensors(), inputs.tensors(), strict=True):
            # From pinned memory the host need not wait; its allocator keeps the memory until it has been read.
            in_reach = value.pin_memory() if buffer.is_cuda and not value.is_cuda else value
            buffer.copy_(in_reach, non_blocking=True)
        return _copied(self._run(lambda: step(*self._buffers.arguments(), *numbers)))

    def _run(self, step: Callable[[], Results]) -> Results:
        if self._recorder is None:
            return step()
        if not self._is_warm:
            self._is_warm = True
            return self._recorder.warm_up(step)
        if self._replay is None:
            try:
                self._replay = self._recorder.capture(step)
            except RuntimeError as error:  # capturing computes nothing, so the step can still be run normally
                warnings.warn(f"a step could not be captured as a CUDA graph: {error}", stacklevel=2)
                self._recorder = None
                return step()
        results: Results = self._replay()
        return results


def _copied(results: Any) -> Any:
    """The same structure with copied tensors."""
    return results.clone() if isinstance(results, Tensor) else type(results)(map(_copied, results))


class CudaRecorder:
    """Captures functions as CUDA graphs, all on one stream and in shared memory.

    Sharing the memory is safe if no two functions run at a time, and results are copied before the next one runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, function: Callable[[], Results]) -> Results:
        """Run `function` on the stream of the captures: some libraries keep a workspace for every stream."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            results = function()
        current.wait_stream(self._stream)
        return results

    def capture(self, function: Callable[[], Results]) -> Callable[[], Results]:
        """A function that repeats `function` and writes into the same results every time. Capturing computes nothing.

        The work of other threads on the GPU does not disturb it.

        Raises:
            RuntimeError: it cannot be captured.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            results = function()

        def replay() -> Results:
            graph.replay()
            return results

        return replay


def recorder_on(device: torch.device) -> CudaRecorder | None:
    """A recorder for the device; None if it is not a GPU."""
    return CudaRecorder(device) if device.type == "cuda" else None
