"""What a training step does with the gradients; `rhn.spec.reference.update` on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from rhn.spec.optimizers import Optimizer, OptimizerState

ToContract = Callable[[Sequence[tf.Tensor]], dict[str, NDArray]]
FromContract = Callable[[OptimizerState], list[NDArray]]


class Update:
    """Changes parameters in place, and keeps what the optimiser remembers.

    TensorFlow does it and not XLA, which would copy all parameters on a CPU.

    Args:
        optimizer: what is done.
        parameters: to be changed.
        state: what an optimiser remembered that did the same before; {} at the start.
        from_contract, to_contract: between tensors in the order of `parameters` and by the contract's names.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Sequence[tf.Variable],
        state: OptimizerState,
        from_contract: FromContract,
        to_contract: ToContract,
    ) -> None:
        self._optimizer = optimizer
        self._parameters = list(parameters)
        self._to_contract = to_contract

        def remembered(kind: str) -> list[tf.Variable]:
            prefix = f"{kind}."
            named = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            values = from_contract(named) if named else [np.zeros(p.shape) for p in self._parameters]
            return [tf.Variable(value, dtype=p.dtype) for value, p in zip(values, self._parameters, strict=True)]

        adam, self._averages = optimizer.name == "adam", "averaged_steps" in state
        self._step = tf.Variable(int(state.get("step", 0)), dtype=tf.int64)
        self._mean = remembered("mean") if adam else []
        self._square = remembered("square") if adam else []
        self._averaged_steps = tf.Variable(int(state.get("averaged_steps", 0)), dtype=tf.int64)
        self._average = remembered("average") if self._averages else []

    def __call__(
        self,
        gradients: Sequence[tf.Tensor],
        learning_rate: tf.Tensor,
        weight_decay: tf.Tensor,
        max_grad_norm: tf.Tensor,
    ) -> tf.Tensor:
        """One step; `gradients` hold the weight decay unless it is decoupled. Returns their norm before clipping."""
        norm = tf.linalg.global_norm(gradients)
        scale = max_grad_norm / tf.maximum(norm, max_grad_norm)
        if self._optimizer.name == "sgd":
            self._sgd(gradients, learning_rate * scale, weight_decay)
        else:
            self._adam(gradients, scale, learning_rate, weight_decay)
        if self._averages:
            share = 1 / tf.cast(self._averaged_steps.assign_add(1), norm.dtype)
            for average, parameter in zip(self._average, self._parameters, strict=True):
                average.assign_add(share * (parameter - average))
        return norm

    def state(self) -> OptimizerState:
        """Copies of what is remembered, by the names of `rhn.spec.optimizers`."""
        state: dict[str, Any] = {}
        if self._optimizer.name == "adam" and self._step > 0:
            state["step"] = self._step.numpy()
            state |= {f"mean.{name}": value for name, value in self._to_contract(self._mean).items()}
            state |= {f"square.{name}": value for name, value in self._to_contract(self._square).items()}
        if self._averages:
            state["averaged_steps"] = self._averaged_steps.numpy()
            if self._averaged_steps > 0:
                state |= {f"average.{name}": value for name, value in self._to_contract(self._average).items()}
        return {name: np.array(value) for name, value in state.items()}

    def _sgd(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor, weight_decay: tf.Tensor) -> None:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            tf.raw_ops.ResourceApplyGradientDescent(var=parameter.handle, alpha=rate, delta=gradient)
            if self._optimizer.decoupled_weight_decay:
                parameter.assign(parameter * (1 - weight_decay))

    def _adam(
        self, gradients: Sequence[tf.Tensor], scale: tf.Tensor, learning_rate: tf.Tensor, weight_decay: tf.Tensor
    ) -> None:
        beta1, beta2 = self._optimizer.beta1, self._optimizer.beta2
        # In float64: the difference of 1 and a float32 that is nearly 1 has but four digits.
        step = tf.cast(self._step.assign_add(1), tf.float64)
        mean_scale, square_scale = (tf.cast(1 - beta**step, scale.dtype) for beta in (beta1, beta2))
        for parameter, mean, square, gradient in zip(
            self._parameters, self._mean, self._square, gradients, strict=True
        ):
            if self._optimizer.decoupled_weight_decay:
                parameter.assign(parameter * (1 - learning_rate * weight_decay))
            g = scale * gradient
            mean.assign(beta1 * mean + (1 - beta1) * g)
            square.assign(beta2 * square + (1 - beta2) * tf.square(g))
            root = tf.sqrt(square / square_scale) + self._optimizer.epsilon
            parameter.assign_sub(learning_rate / mean_scale * mean / root)
