"""What a training step does with the gradients; `rhn.spec.reference.update` on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rhn.spec.optimizers import Optimizer, OptimizerState

ToContract = Callable[[Sequence[Tensor]], dict[str, NDArray]]
FromContract = Callable[[OptimizerState], list[Tensor]]


class Update:
    """Changes parameters in place, and keeps what the optimiser remembers, in place too and all of it on the device:
    nothing waits for the device, and a CUDA graph of a step can be replayed for the next.

    Args:
        optimizer: what is done.
        parameters: to be changed.
        state: what an optimiser remembered that did the same before; {} at the start.
        from_contract, to_contract: between tensors in the order of `parameters` and by the contract's names.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Iterable[Tensor],
        state: OptimizerState,
        from_contract: FromContract,
        to_contract: ToContract,
    ) -> None:
        self._optimizer = optimizer
        self._parameters = list(parameters)
        self._to_contract = to_contract

        def remembered(kind: str) -> list[Tensor]:
            prefix = f"{kind}."
            named = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            if not named:
                return [torch.zeros_like(p) for p in self._parameters]
            return [value.to(p, copy=True) for value, p in zip(from_contract(named), self._parameters, strict=True)]

        def counter(name: str) -> Tensor:
            """(); float64, which holds every count and gives Adam's 1 - beta ** step all its digits."""
            return torch.tensor(int(state.get(name, 0)), dtype=torch.float64, device=self._parameters[0].device)

        adam, self._averages = optimizer.name == "adam", "averaged_steps" in state
        self._step = counter("step")
        self._mean = remembered("mean") if adam else []
        self._square = remembered("square") if adam else []
        self._averaged_steps = counter("averaged_steps")
        self._average = remembered("average") if self._averages else []

    @torch.no_grad()
    def __call__(
        self, gradients: Sequence[Tensor], learning_rate: float | Tensor, weight_decay: float, max_grad_norm: float
    ) -> Tensor:
        """One step; `gradients` hold the weight decay unless it is decoupled. Returns their norm before clipping.

        A rate that is a tensor is () and float64, with the same result as the number.
        """
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
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
        """Copies of what is remembered, by the names of `rhn.spec.optimizers`."""
        state: dict[str, Any] = {}
        step, averaged_steps = int(self._step), int(self._averaged_steps)
        if self._optimizer.name == "adam" and step > 0:
            state["step"] = step
            state |= {f"mean.{name}": value for name, value in self._to_contract(self._mean).items()}
            state |= {f"square.{name}": value for name, value in self._to_contract(self._square).items()}
        if self._averages:
            state["averaged_steps"] = averaged_steps
            if averaged_steps > 0:
                state |= {f"average.{name}": value for name, value in self._to_contract(self._average).items()}
        return {name: np.array(value) for name, value in state.items()}

    def _sgd(self, gradients: Sequence[Tensor], scale: Tensor, learning_rate: Tensor, weight_decay: float) -> None:
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
            g = scale * gradient
            mean.mul_(beta1).add_(g, alpha=1 - beta1)
            square.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            root = (square / square_scale).sqrt_().add_(self._optimizer.epsilon)
            parameter -= (mean / root).mul_(step_size)
