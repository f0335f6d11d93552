"""The update rule of a training step: `rhn.spec.reference.update` on the device (SPEC.md 5.3 to 5.10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rhn.port_tools import OptimizerMemory, Tensors, pack_optimizer_state, unpack_optimizer_state
from rhn.spec.config import RHNConfig
from rhn.spec.optimizers import Optimizer, OptimizerState
from rhn_torch.weights import from_spec, to_spec

_MANY = 2**16  # elements; the float32 norm of fewer errs by less than 1e-6


class Update:
    """Changes the parameters and the optimiser state in place, on the device. So nothing waits for the device, and the
    CUDA graph of a step can be replayed for the next step.

    Args:
        config: the architecture.
        optimizer: the update rule.
        parameters: parameters of an `RHNLanguageModel`, by their names in it; they are changed.
        state: the optimiser state to start from; {} at the start.
    """

    def __init__(
        self, config: RHNConfig, optimizer: Optimizer, parameters: Mapping[str, Tensor], state: OptimizerState
    ) -> None:
        self._config = config
        self._optimizer = optimizer
        self._names = list(parameters)
        self._parameters = list(parameters.values())
        memory = unpack_optimizer_state(state)
        self._averages = memory.averaged_steps is not None
        self._step = self._counter(memory.step)
        self._mean = self._tensors(memory.mean) if optimizer.name == "adam" else []
        self._square = self._tensors(memory.square) if optimizer.name == "adam" else []
        self._momentum = self._tensors(memory.momentum) if optimizer.momentum else []
        self._averaged_steps = self._counter(memory.averaged_steps)
        self._average = self._tensors(memory.average) if self._averages else []

    @torch.no_grad()
    def __call__(
        self, gradients: Sequence[Tensor], learning_rate: float | Tensor, weight_decay: float, max_grad_norm: float
    ) -> Tensor:
        """One step; `gradients` include weight decay unless it is decoupled. Returns their norm before clipping.

        A rate that is a tensor is () and float64, with the same result as the number.
        """
        norm = torch.linalg.vector_norm(torch.stack([_norm(g) for g in gradients]))
        scale = max_grad_norm / norm.clamp(min=max_grad_norm)  # ()
        learning_rate = torch.as_tensor(learning_rate, dtype=torch.float64)
        if self._optimizer.name == "sgd":
            self._sgd(gradients, scale, learning_rate, weight_decay)
        else:
            self._adam(gradients, scale, learning_rate, weight_decay)
        if self._averages:
            self._averaged_steps += 1
            for average, parameter in zip(self._average, self._parameters, strict=True):
                average += (parameter - average) / self._averaged_steps
        return norm

    def state(self) -> OptimizerState:
        """Copies of the optimiser state, by the names of `rhn.spec.optimizers`."""
        step, averaged_steps = int(self._step), int(self._averaged_steps)
        return pack_optimizer_state(
            OptimizerMemory(
                step=step or None,
                mean=self._arrays(self._mean) if step else None,
                square=self._arrays(self._square) if step else None,
                averaged_steps=averaged_steps if self._averages else None,
                average=self._arrays(self._average) if averaged_steps else None,
                momentum=self._arrays(self._momentum) if self._optimizer.momentum else None,
            )
        )

    def _sgd(self, gradients: Sequence[Tensor], scale: Tensor, learning_rate: Tensor, weight_decay: float) -> None:
        optimizer = self._optimizer
        if optimizer.momentum or optimizer.max_grad_value is not None:
            gradients = [self._clipped(gradient, scale) for gradient in gradients]
            scale = torch.ones_like(scale)
        if optimizer.momentum:
            for momentum, gradient in zip(self._momentum, gradients, strict=True):
                momentum.mul_(optimizer.momentum).add_(gradient)
            gradients = self._momentum
        factor = (-learning_rate * scale).to(scale.dtype)  # ()
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.addcmul_(gradient, factor)
            if self._optimizer.decoupled_weight_decay:
                parameter *= 1 - weight_decay

    def _adam(self, gradients: Sequence[Tensor], scale: Tensor, learning_rate: Tensor, weight_decay: float) -> None:
        self._step += 1
        beta1, beta2 = self._optimizer.beta1, self._optimizer.beta2
        step_size = learning_rate / (1 - beta1**self._step)  # ()
        square_scale = 1 - beta2**self._step  # ()
        for parameter, mean, square, gradient in zip(
            self._parameters, self._mean, self._square, gradients, strict=True
        ):
            if self._optimizer.decoupled_weight_decay:
                parameter *= 1 - learning_rate * weight_decay
            g = self._clipped(gradient, scale)
            mean.mul_(beta1).add_(g, alpha=1 - beta1)
            square.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            root = (square / square_scale).sqrt_().add_(self._optimizer.epsilon)
            parameter -= (mean / root).mul_(step_size)

    def _clipped(self, gradient: Tensor, scale: Tensor) -> Tensor:
        """The gradient, scaled and with its entries clipped."""
        scaled, limit = scale * gradient, self._optimizer.max_grad_value
        return scaled if limit is None else scaled.clamp_(-limit, limit)

    def _counter(self, count: int | None) -> Tensor:
        """A count, (), in float64, which holds every integer needed, and Adam's 1 - beta ** step to full precision."""
        return torch.tensor(count or 0, dtype=torch.float64, device=self._parameters[0].device)

    def _tensors(self, arrays: Tensors | None) -> list[Tensor]:
        """What is remembered for each parameter; None is zero."""
        if arrays is None:
            return [torch.zeros_like(parameter) for parameter in self._parameters]
        values = from_spec(self._config, arrays)
        return [values[name].to(p, copy=True) for name, p in zip(self._names, self._parameters, strict=True)]

    def _arrays(self, tensors: Sequence[Tensor]) -> Tensors:
        """The inverse of `_tensors`; copies."""
        return to_spec(self._config, dict(zip(self._names, tensors, strict=True)))


def _norm(tensor: Tensor) -> Tensor:
    """(): the 2-norm. On a CPU, one float32 sum over (10000, 830) squares errs by 2e-4; over rows first, by 1e-7."""
    is_long_sum = tensor.dtype == torch.float32 and tensor.numel() > _MANY
    return torch.linalg.vector_norm(torch.linalg.vector_norm(tensor, dim=-1) if is_long_sum else tensor)
