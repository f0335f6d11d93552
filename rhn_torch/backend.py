"""The torch backend: what `rhn.training` and the conformance suite drive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rhn.backend import State, check_precision
from rhn.spec.arguments import check_choice, check_masks, check_state, check_targets, check_tokens
from rhn.spec.config import RHNConfig
from rhn.spec.masks import VariationalMasks
from rhn.spec.optimizers import PAPER_SGD, Optimizer, OptimizerState
from rhn.spec.parameters import parameter_count
from rhn_torch.cuda_graph import StaticSteps, StepResults, TrainStep
from rhn_torch.model import RHNLanguageModel
from rhn_torch.precision import products
from rhn_torch.update import Update

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class TorchModel:
    """See `rhn.backend.Model`. `module` is the `RHNLanguageModel` underneath."""

    def __init__(
        self,
        config: RHNConfig,
        parameters: Mapping[str, NDArray],
        dtype: torch.dtype,
        device: torch.device,
        optimizer: Optimizer,
        precision: str,
        recurrence: str,
        static_steps: bool,
    ) -> None:
        self.config = config
        self.parameter_count = parameter_count(config)
        self.module = RHNLanguageModel(config, recurrence=recurrence, dtype=dtype, device=device)
        self.module.load_parameters(parameters)
        self.last_grad_norm: Any = torch.zeros((), dtype=dtype, device=device)
        self._dtype = dtype
        self._device = device
        self._precision = precision
        self._optimizer = optimizer
        self._static_steps = static_steps
        self.load_optimizer_state({})

    def forward(
        self, tokens: ArrayLike, state: State | None = None, masks: VariationalMasks | None = None
    ) -> tuple[NDArray, list[NDArray]]:
        with torch.no_grad(), self._products():
            logits, new_state = self.module(*self._window(tokens, state, masks))
        return self.to_numpy(logits), [self.to_numpy(s) for s in new_state]

    def gradients(
        self,
        tokens: ArrayLike,
        targets: ArrayLike,
        state: State | None = None,
        masks: VariationalMasks | None = None,
        weight_decay: float = 0.0,
    ) -> tuple[float, dict[str, NDArray], list[NDArray]]:
        window = self._training_window(tokens, targets, state, masks)
        loss, gradients, new_state = self._gradients(*window, weight_decay)
        return loss.item(), self.module.to_contract(gradients), [self.to_numpy(s) for s in new_state]

    def train_step(
        self,
        tokens: ArrayLike,
        targets: ArrayLike,
        state: State,
        masks: VariationalMasks | None,
        learning_rate: float,
        weight_decay: float,
        max_grad_norm: float,
    ) -> tuple[Any, list[Any]]:
        window = self._training_window(tokens, targets, state, masks)
        loss, new_state, self.last_grad_norm = self._step(*window, learning_rate, weight_decay, max_grad_norm)
        return loss, new_state

    def evaluate_step(
        self, tokens: ArrayLike, targets: ArrayLike, state: State, masks: VariationalMasks | None = None
    ) -> tuple[Any, list[Any]]:
        with torch.no_grad(), self._products():
            return self.module.negative_log_likelihood(*self._training_window(tokens, targets, state, masks))

    def log_likelihoods(
        self, tokens: ArrayLike, targets: ArrayLike, state: State, masks: VariationalMasks | None = None
    ) -> tuple[Any, list[Any]]:
        window, target_indices = self._window(tokens, state, masks), self._targets(targets, tokens)
        with torch.no_grad(), self._products():
            logits, new_state = self.module(*window)  # (B, T, V)
            normaliser = logits.logsumexp(dim=-1)  # (B, T)
            return logits.gather(-1, target_indices.unsqueeze(-1)).squeeze(-1) - normaliser, new_state

    def parameters(self) -> dict[str, NDArray]:
        return self.module.export_parameters()

    def load_parameters(self, parameters: Mapping[str, NDArray]) -> None:
        self.module.load_parameters(parameters)

    def optimizer_state(self) -> OptimizerState:
        return self._update.state()

    def load_optimizer_state(self, state: OptimizerState) -> None:
        module = self.module
        self._update = Update(self._optimizer, module.parameters(), state, module.from_contract, module.to_contract)
        self._step: TrainStep = self._plain_step
        if self._static_steps:  # anew: a captured step goes on changing what was remembered when it was captured
            self._step = StaticSteps(self._plain_step, self._dtype, self._device)

    def zero_state(self, batch_size: int) -> list[Any]:
        shape = (batch_size, self.config.hidden_size)
        return [torch.zeros(shape, dtype=self._dtype, device=self._device) for _ in range(self.config.num_layers)]

    def to_numpy(self, array: Any) -> NDArray:
        return np.array(torch.as_tensor(array).detach().cpu().numpy(), order="C")

    def _plain_step(
        self,
        tokens: Tensor,
        targets: Tensor,
        state: Sequence[Tensor],
        masks: VariationalMasks | None,
        learning_rate: float | Tensor,
        weight_decay: float,
        max_grad_norm: float,
    ) -> StepResults:
        """Loss, state after the window, and norm of the gradients."""
        decay_in_loss = 0.0 if self._optimizer.decoupled_weight_decay else weight_decay
        loss, gradients, new_state = self._gradients(tokens, targets, state, masks, decay_in_loss)
        norm = self._update(gradients, learning_rate, weight_decay, max_grad_norm)
        return loss, new_state, norm

    def _gradients(
        self,
        tokens: Tensor,
        targets: Tensor,
        state: Sequence[Tensor] | None,
        masks: VariationalMasks | None,
        weight_decay: float,
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """As `gradients`, on the device; the gradients in the order of the module's parameters."""
        parameters = list(self.module.parameters())
        with self._products():
            nll, new_state = self.module.negative_log_likelihood(tokens, targets, state, masks)
            loss = nll / len(new_state[0])
            gradients = list(torch.autograd.grad(loss, parameters))
        if weight_decay:
            for gradient, parameter in zip(gradients, parameters, strict=True):
                gradient.add_(parameter.detach(), alpha=weight_decay)
        return loss.detach(), gradients, [s.detach() for s in new_state]

    def _products(self) -> AbstractContextManager[None]:
        """Where the matrix products of forward and backward have the precision that was asked for."""
        return products(self._precision, self._device)

    def _training_window(
        self, tokens: ArrayLike, targets: ArrayLike, state: State | None, masks: VariationalMasks | None
    ) -> tuple[Tensor, Tensor, Any, VariationalMasks | None]:
        """What the module takes, checked: tokens, targets, state, masks."""
        token_indices, state_tensors, masks = self._window(tokens, state, masks)
        return token_indices, self._targets(targets, tokens), state_tensors, masks

    def _window(
        self, tokens: ArrayLike, state: State | None, masks: VariationalMasks | None
    ) -> tuple[Tensor, list[Tensor] | None, VariationalMasks | None]:
        """What the module takes, checked."""
        tokens = check_tokens("tokens", tokens, self.config.vocab_size)
        if masks is not None:
            check_masks(self.config, masks, *tokens.shape)
        return self._indices(tokens), None if state is None else self._check_state(state, len(tokens)), masks

    def _targets(self, targets: ArrayLike, tokens: ArrayLike) -> Tensor:
        """What the module takes, checked."""
        return self._indices(check_targets(targets, np.shape(tokens), self.config.vocab_size))

    def _check_state(self, state: State, batch_size: int) -> list[Tensor]:
        tensors = [torch.as_tensor(s, dtype=self._dtype, device=self._device) for s in state]
        check_state(self.config, tensors, batch_size)
        return tensors

    def _indices(self, tokens: NDArray) -> Tensor:
        """On the device, of the integer type that torch looks up with."""
        indices = torch.from_numpy(tokens.astype(np.int64))
        return indices.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else indices


class TorchBackend:
    """See `rhn.backend.Backend`.

    Args:
        recurrence: see `RHN`.
        static_steps: training steps run on buffers that never move, on a GPU as CUDA graphs; None: on a GPU only,
            since they gain nothing elsewhere.
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
    ) -> TorchModel:
        check_choice("dtype", dtype, _DTYPES)
        check_precision(precision, dtype)
        found = find_device(device)
        recurrence = "recompute" if recompute else self._recurrence
        static = found.type == "cuda" if self._static_steps is None else self._static_steps
        return TorchModel(config, parameters, _DTYPES[dtype], found, optimizer, precision, recurrence, static)

    def describe(self) -> dict[str, str]:
        device = find_device(None)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        return {"torch": torch.__version__, "device": name}


def find_device(device: str | None) -> torch.device:
    """The device called "cpu", "gpu", "cuda" or "cuda:<number>"; None is the first GPU, or the CPU where there is none.

    Raises:
        ValueError: there is no such device.
    """
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    accepted = ["cpu", *(["gpu", "cuda"] if gpus else []), *gpus]
    if device is None:
        device = gpus[0] if gpus else "cpu"
    if device not in accepted:
        raise ValueError(f"device={device!r} is not available: there is {', '.join(accepted)}")
    return torch.device("cuda" if device == "gpu" else device)
