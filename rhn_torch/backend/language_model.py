"""The torch backend and its language models, behind `rhn.backend.Backend` and `rhn.backend.Model`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rhn.backend import State, check_precision
from rhn.port_tools import NO_REGULARIZATION, Regularization, StepsInFlight, Window, check_window, choose_device
from rhn.processes import ALONE, Processes
from rhn.spec.arguments import check_choice
from rhn.spec.config import RHNConfig
from rhn.spec.layers import LayerConfig
from rhn.spec.masks import VariationalMasks
from rhn.spec.optimizers import PAPER_SGD, Optimizer, OptimizerState
from rhn.spec.parameters import parameter_count
from rhn_torch.backend.layer import TorchLayer
from rhn_torch.backend.processes import TorchProcesses, join_processes
from rhn_torch.gpu.cuda_graph import StaticSteps
from rhn_torch.model import RHNLanguageModel
from rhn_torch.precision import Precision
from rhn_torch.update import Update
from rhn_torch.weights import mask_tensors, to_device, to_numpy, to_spec

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class TorchModel:
    """See `rhn.backend.Model`. `module` is the `RHNLanguageModel` underneath."""

    def __init__(
        self,
        config: RHNConfig,
        parameters: Mapping[str, NDArray],
        dtype: torch.dtype,
        optimizer: Optimizer,
        precision: Precision,
        recurrence: str,
        static_steps: bool,
        processes: TorchProcesses | None = None,
    ) -> None:
        self.config = config
        self.parameter_count = parameter_count(config)
        self.module = RHNLanguageModel(config, recurrence=recurrence, dtype=dtype, device=precision.device)
        self.module.load_parameters(parameters)
        self.last_grad_norm: Any = torch.zeros((), dtype=dtype, device=precision.device)
        self._dtype = dtype
        self._device = precision.device
        self._optimizer = optimizer
        self._precision = precision
        self._is_static = static_steps
        self._processes = processes
        self._in_flight = StepsInFlight(wait=torch.cuda.Event.synchronize)
        self.load_optimizer_state({})

    def forward(
        self, tokens: ArrayLike, state: State | None = None, masks: VariationalMasks | None = None
    ) -> tuple[NDArray, list[NDArray]]:
        window = self._window(tokens, None, state, masks)
        with torch.no_grad(), self._precision.products():
            logits, new_state = self.module(window.tokens, window.state, window.masks)
        return self.to_numpy(logits), [self.to_numpy(s) for s in new_state]

    def gradients(
        self,
        tokens: ArrayLike,
        targets: ArrayLike,
        state: State | None = None,
        masks: VariationalMasks | None = None,
        weight_decay: float = 0.0,
        *,
        activation_regularization: float = 0.0,
        temporal_activation_regularization: float = 0.0,
        length: int | None = None,
    ) -> tuple[float, dict[str, NDArray], list[NDArray]]:
        window = self._window(tokens, targets, state, masks, length)
        regularization = Regularization(activation_regularization or None, temporal_activation_regularization or None)
        loss, gradients, new_state = self._gradients(window, weight_decay, regularization)
        return loss.item(), to_spec(self.config, gradients), [self.to_numpy(s) for s in new_state]

    def train_step(
        self,
        tokens: ArrayLike,
        targets: ArrayLike,
        state: State,
        masks: VariationalMasks | None,
        learning_rate: float,
        weight_decay: float,
        max_grad_norm: float,
        *,
        activation_regularization: float = 0.0,
        temporal_activation_regularization: float = 0.0,
        length: int | None = None,
    ) -> tuple[Any, list[Any]]:
        window = self._window(tokens, targets, state, masks, length)
        regularization = Regularization(activation_regularization or None, temporal_activation_regularization or None)
        numbers = learning_rate, weight_decay, max_grad_norm, regularization
        if self._static_steps is None:
            loss, new_state, self.last_grad_norm = self._step(window, *numbers)
        else:
            loss, new_state, self.last_grad_norm = self._static_steps(self._step, window, *numbers)
        self._note_step()
        return loss, new_state

    def evaluate_step(
        self, tokens: ArrayLike, targets: ArrayLike, state: State, masks: VariationalMasks | None = None
    ) -> tuple[Any, list[Any]]:
        window = self._window(tokens, targets, state, masks)
        evaluated = self._evaluate(window) if self._static_steps is None else self._static_steps(self._evaluate, window)
        self._note_step()
        return evaluated

    def log_likelihoods(
        self, tokens: ArrayLike, targets: ArrayLike, state: State, masks: VariationalMasks | None = None
    ) -> tuple[Any, list[Any]]:
        window = self._window(tokens, targets, state, masks)
        with torch.no_grad(), self._precision.products():
            return self.module.log_likelihoods(window)

    def parameters(self) -> dict[str, NDArray]:
        return self.module.export_parameters()

    def load_parameters(self, parameters: Mapping[str, NDArray]) -> None:
        self.module.load_parameters(parameters)

    def optimizer_state(self) -> OptimizerState:
        return self._update.state()

    def load_optimizer_state(self, state: OptimizerState) -> None:
        self._update = Update(self.config, self._optimizer, dict(self.module.named_parameters()), state)
        # New steps: a captured step would change the tensors that it was captured with.
        self._static_steps = StaticSteps(self._device) if self._is_static else None

    def zero_state(self, batch_size: int) -> list[Any]:
        shape = (batch_size, self.config.hidden_size)
        return [torch.zeros(shape, dtype=self._dtype, device=self._device) for _ in range(self.config.num_layers)]

    def to_numpy(self, array: Any) -> NDArray:
        return to_numpy(torch.as_tensor(array))

    def _step(
        self,
        window: Window,
        learning_rate: float | Tensor,
        weight_decay: float,
        max_grad_norm: float,
        regularization: Regularization,
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Loss, state after the window, and norm of the gradients."""
        decay_in_loss = 0.0 if self._optimizer.decoupled_weight_decay else weight_decay
        loss, gradients, new_state = self._gradients(window, decay_in_loss, regularization)
        norm = self._update(list(gradients.values()), learning_rate, weight_decay, max_grad_norm)
        return loss, new_state, norm

    def _evaluate(self, window: Window) -> tuple[Tensor, list[Tensor]]:
        """As `evaluate_step`, for a window on the device."""
        with torch.no_grad(), self._precision.products():
            return self.module.negative_log_likelihood(*window)

    def _note_step(self) -> None:
        """Note that a step was given to the device; a CPU has finished it by now."""
        if self._device.type == "cuda":
            done = torch.cuda.Event()
            done.record(torch.cuda.current_stream(self._device))
            self._in_flight.add(done)

    def _gradients(
        self, window: Window, weight_decay: float, regularization: Regularization = NO_REGULARIZATION
    ) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        """As `gradients`, on the device; the gradients by the names and in the order of the module's parameters."""
        parameters = dict(self.module.named_parameters())
        with self._precision.products():
            nll, penalty, new_state = self.module.training_loss(window, regularization)
            batch_size = self._batch_size(new_state)
            loss = nll / batch_size
            differentiated = loss if penalty is None else loss + penalty / batch_size
            gradients = torch.autograd.grad(differentiated, list(parameters.values()))
        if self._processes is not None:
            loss, *gradients = self._processes.sum([loss.detach(), *gradients])
        if weight_decay:
            for gradient, parameter in zip(gradients, parameters.values(), strict=True):
                gradient.add_(parameter.detach(), alpha=weight_decay)
        return loss.detach(), dict(zip(parameters, gradients, strict=True)), [s.detach() for s in new_state]

    def _batch_size(self, state: list[Tensor]) -> int:
        """B, over all processes."""
        return len(state[0]) * (1 if self._processes is None else self._processes.count)

    def _window(
        self,
        tokens: ArrayLike,
        targets: ArrayLike | None,
        state: State | None,
        masks: VariationalMasks | None,
        length: int | None = None,
    ) -> Window:
        """The window, checked, as tensors on the device."""
        state_tensors = None if state is None else [to_device(s, self._dtype, self._device) for s in state]
        tokens, targets = check_window(self.config, tokens, targets, state_tensors, masks, length)
        return Window(
            to_device(tokens.astype(np.int64), torch.int64, self._device),
            None if targets is None else to_device(targets.astype(np.int64), torch.int64, self._device),
            state_tensors,
            mask_tensors(masks, like=self.module.embedding),
            None if length is None else to_device(np.array(length, np.int64), torch.int64, self._device),
        )


class TorchBackend:
    """See `rhn.backend.Backend` and `rhn.backend.LayerBackend`.

    Args:
        recurrence: see `RHN`.
        static_steps: steps of training and evaluation run on buffers that never move, on a GPU as CUDA graphs; None: on
            a GPU only, because nothing is gained elsewhere.
    """

    name = "torch"

    def __init__(self, recurrence: str = "fast", static_steps: bool | None = None) -> None:
        self._recurrence = recurrence
        self._static_steps = static_steps

    def build(
        self,
        config: RHNConfig,
        parameters: Mapping[str, NDArray],
        dtype: str = "float32",
        device: str | None = None,
        optimizer: Optimizer = PAPER_SGD,
        precision: str = "float32",
        recompute: bool = False,
        processes: Processes = ALONE,
    ) -> TorchModel:
        check_choice("dtype", dtype, _DTYPES)
        check_precision(precision, dtype)
        several = processes if isinstance(processes, TorchProcesses) else None
        found = Precision(precision, find_device(device if several is None else several.device(device)))
        recurrence = "recompute" if recompute else self._recurrence
        static = found.device.type == "cuda" if self._static_steps is None else self._static_steps
        return TorchModel(config, parameters, _DTYPES[dtype], optimizer, found, recurrence, static, several)

    def join_processes(self, device: str | None) -> Processes:
        return join_processes(device)

    def build_layer(
        self, config: LayerConfig, parameters: Mapping[str, NDArray], dtype: str = "float32", device: str | None = None
    ) -> TorchLayer:
        check_choice("dtype", dtype, _DTYPES)
        return TorchLayer(config, parameters, _DTYPES[dtype], find_device(device))

    def describe(self) -> dict[str, str]:
        device = find_device(None)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        return {"torch": torch.__version__, "device": name}


def find_device(device: str | None) -> torch.device:
    """The device named "cpu", "gpu", "cuda" or "cuda:<number>"; None is the first GPU, or the CPU where there is none.

    Raises:
        ValueError: there is no such device.
    """
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    available = ["cpu", *(["gpu", "cuda", *reversed(gpus)] if gpus else [])]  # the last is taken if none is named
    device = choose_device(device, available)
    return torch.device("cuda" if device == "gpu" else device)
