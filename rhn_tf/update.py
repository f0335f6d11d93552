"""The update rule of a training step: `rhn.spec.reference.update` on the device (SPEC.md 5.3 to 5.10)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from rhn.port_tools import OptimizerMemory, Tensors, pack_optimizer_state, unpack_optimizer_state
from rhn.spec.config import RHNConfig
from rhn.spec.optimizers import Optimizer, OptimizerState
from rhn_tf.weights import from_spec, to_spec


class Update:
    """Changes the parameters and the optimiser state in place.

    TensorFlow computes this without XLA, which would copy all parameters on a CPU.

    Args:
        optimizer: the update rule.
        config: the architecture.
        parameters: parameters in the order of `RHNLanguageModel.parameters`; they are changed.
        state: the optimiser state to start from; {} at the start.
    """

    def __init__(
        self, optimizer: Optimizer, config: RHNConfig, parameters: Sequence[tf.Variable], state: OptimizerState
    ) -> None:
        self._optimizer = optimizer
        self._config = config
        self._parameters = list(parameters)
        memory = unpack_optimizer_state(state)
        is_adam, self._averages = optimizer.name == "adam", memory.averaged_steps is not None
        self._step = tf.Variable(memory.step or 0, dtype=tf.int64)
        self._mean = self._variables(memory.mean) if is_adam else []
        self._square = self._variables(memory.square) if is_adam else []
        self._momentum = self._variables(memory.momentum) if optimizer.momentum else []
        self._averaged_steps = tf.Variable(memory.averaged_steps or 0, dtype=tf.int64)
        self._average = self._variables(memory.average) if self._averages else []

    def __call__(
        self,
        gradients: Sequence[tf.Tensor],
        learning_rate: tf.Tensor,
        weight_decay: tf.Tensor,
        max_grad_norm: tf.Tensor,
    ) -> tf.Tensor:
        """One step; `gradients` include weight decay unless it is decoupled. Returns their norm before clipping."""
        norm = tf.linalg.global_norm(gradients)
        scale = max_grad_norm / tf.maximum(norm, max_grad_norm)
        if self._optimizer.name == "sgd":
            self._sgd(gradients, scale, learning_rate, weight_decay)
        else:
            self._adam(gradients, scale, learning_rate, weight_decay)
        if self._averages:
            share = 1 / tf.cast(self._averaged_steps.assign_add(1), norm.dtype)
            for average, parameter in zip(self._average, self._parameters, strict=True):
                average.assign_add(share * (parameter - average))
        return norm

    def state(self) -> OptimizerState:
        """Copies of the optimiser state, by the names of `rhn.spec.optimizers`."""
        step, averaged_steps = int(self._step), int(self._averaged_steps)
        stepped, averaged = step > 0 and self._optimizer.name == "adam", averaged_steps > 0
        return pack_optimizer_state(
            OptimizerMemory(
                step=step if stepped else None,
                mean=to_spec(self._config, self._mean) if stepped else None,
                square=to_spec(self._config, self._square) if stepped else None,
                averaged_steps=averaged_steps if self._averages else None,
                average=to_spec(self._config, self._average) if averaged else None,
                momentum=to_spec(self._config, self._momentum) if self._momentum else None,
            )
        )

    def _variables(self, tensors: Tensors | None) -> list[tf.Variable]:
        """One variable per parameter: `tensors` by the names of the specification, or zeros."""
        values = [np.zeros(p.shape) for p in self._parameters] if tensors is None else from_spec(self._config, tensors)
        return [tf.Variable(value, dtype=p.dtype) for value, p in zip(values, self._parameters, strict=True)]

    def _sgd(
        self, gradients: Sequence[tf.Tensor], scale: tf.Tensor, learning_rate: tf.Tensor, weight_decay: tf.Tensor
    ) -> None:
        optimizer, rate = self._optimizer, learning_rate * scale
        if optimizer.momentum or optimizer.max_grad_value is not None:
            gradients, rate = [self._clipped(gradient, scale) for gradient in gradients], learning_rate
        if optimizer.momentum:
            gradients = [
                momentum.assign(optimizer.momentum * momentum + gradient)
                for momentum, gradient in zip(self._momentum, gradients, strict=True)
            ]
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            tf.raw_ops.ResourceApplyGradientDescent(var=parameter.handle, alpha=rate, delta=gradient)
            if self._optimizer.decoupled_weight_decay:
                parameter.assign(parameter * (1 - weight_decay))

    def _adam(
        self, gradients: Sequence[tf.Tensor], scale: tf.Tensor, learning_rate: tf.Tensor, weight_decay: tf.Tensor
    ) -> None:
        beta1, beta2 = self._optimizer.beta1, self._optimizer.beta2
        # In float64: the difference of 1 and a float32 close to 1 has only four digits.
        step = tf.cast(self._step.assign_add(1), tf.float64)
        mean_scale, square_scale = (tf.cast(1 - beta**step, scale.dtype) for beta in (beta1, beta2))
        for parameter, mean, square, gradient in zip(
            self._parameters, self._mean, self._square, gradients, strict=True
        ):
            if self._optimizer.decoupled_weight_decay:
                parameter.assign(parameter * (1 - learning_rate * weight_decay))
            g = self._clipped(gradient, scale)
            mean.assign(beta1 * mean + (1 - beta1) * g)
            square.assign(beta2 * square + (1 - beta2) * tf.square(g))
            root = tf.sqrt(square / square_scale) + self._optimizer.epsilon
            parameter.assign_sub(learning_rate / mean_scale * mean / root)

    def _clipped(self, gradient: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """The gradient, scaled and with its entries clipped."""
        limit = self._optimizer.max_grad_value
        return scale * gradient if limit is None else tf.clip_by_value(scale * gradient, -limit, limit)
