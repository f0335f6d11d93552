"""The update rule of a training step: `rhn.spec.reference.update` with optax (SPEC.md 5.3 to 5.10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from rhn.port_tools import OptimizerMemory, Tensors, pack_optimizer_state, unpack_optimizer_state
from rhn.spec.optimizers import Optimizer, OptimizerState

Tree = Any  # a pytree of arrays with the structure of the parameters
Scalar: TypeAlias = Array | np.floating[Any] | float


class Rates(NamedTuple):
    """Scalars that may change from step to step."""

    learning_rate: Scalar
    weight_decay: Scalar
    max_grad_norm: Scalar


class Memory(NamedTuple):
    """The state of the optimiser.

    Attributes:
        optax: state of the optax transformation.
        averaged_steps: () integer, number of steps in `average`; None if the weights are not averaged.
        average: mean of the parameters after each of these steps; None if the weights are not averaged.
    """

    optax: optax.OptState
    averaged_steps: Array | None
    average: Tree | None


@dataclass(frozen=True)
class Update:
    """Computes new parameters and a new optimiser state. It holds neither: a compiled function takes and returns them.

    Args:
        optimizer: the update rule.
    """

    optimizer: Optimizer

    def __call__(self, params: Tree, gradients: Tree, memory: Memory, rates: Rates) -> tuple[Tree, Memory, Array]:
        """Parameters and memory after one step, and the global norm of the gradients before clipping.

        `gradients` include weight decay unless it is decoupled.
        """
        updates, optax_state = self._transformation(rates).update(gradients, memory.optax, params)
        params = optax.apply_updates(params, updates)
        averaged_steps, average = memory.averaged_steps, memory.average
        if averaged_steps is not None:
            averaged_steps = averaged_steps + 1
            average = jax.tree.map(lambda mean, p: mean + (p - mean) / averaged_steps.astype(p.dtype), average, params)
        return params, Memory(optax_state, averaged_steps, average), optax.tree.norm(gradients)

    def memory(self, params: Tree, state: OptimizerState, from_spec: Callable[[Tensors], Tree]) -> Memory:
        """The memory that `state` describes; {} at the start.

        Args:
            params: the parameters, for their structure.
            state: as `rhn.spec.optimizers` names it.
            from_spec: a tree like the parameters from tensors by the specification's names.
        """
        step, mean, square, averaged_steps, average, momentum = unpack_optimizer_state(state)
        optax_state = self._transformation(Rates(0.0, 0.0, 0.0)).init(params)
        if step is not None and mean is not None and square is not None:
            count = jnp.asarray(step, jnp.int32)
            optax_state = optax.tree.set(optax_state, count=count, mu=from_spec(mean), nu=from_spec(square))
        if momentum is not None:
            optax_state = optax.tree.set(optax_state, trace=from_spec(momentum))
        if averaged_steps is None:
            return Memory(optax_state, None, None)
        mean_of_steps = optax.tree.zeros_like(params) if average is None else from_spec(average)
        return Memory(optax_state, jnp.asarray(averaged_steps, jnp.int32), mean_of_steps)

    def state(self, memory: Memory, to_spec: Callable[[Tree], dict[str, NDArray]]) -> OptimizerState:
        """Copies of the memory by the names of `rhn.spec.optimizers`; the inverse of `memory`."""
        remembered = OptimizerMemory()
        step = optax.tree.get(memory.optax, "count")
        if step is not None and step > 0:
            mean, square = (to_spec(optax.tree.get(memory.optax, name)) for name in ("mu", "nu"))
            remembered = remembered._replace(step=int(step), mean=mean, square=square)
        if self.optimizer.momentum:
            remembered = remembered._replace(momentum=to_spec(optax.tree.get(memory.optax, "trace")))
        if memory.averaged_steps is not None:
            averaged_steps = int(memory.averaged_steps)
            average = to_spec(memory.average) if averaged_steps > 0 else None
            remembered = remembered._replace(averaged_steps=averaged_steps, average=average)
        return pack_optimizer_state(remembered)

    def _transformation(self, rates: Rates) -> optax.GradientTransformation:
        """The transformation of gradients into the change of the parameters. `rates` may be tracers."""
        optimizer = self.optimizer
        steps = [optax.clip_by_global_norm(rates.max_grad_norm)]
        if optimizer.max_grad_value is not None:
            steps.append(optax.clip(optimizer.max_grad_value))
        if optimizer.momentum:
            steps.append(optax.trace(optimizer.momentum))
        if optimizer.name == "adam":
            steps.append(optax.scale_by_adam(optimizer.beta1, optimizer.beta2, optimizer.epsilon))
            if optimizer.decoupled_weight_decay:
                steps.append(optax.add_decayed_weights(rates.weight_decay))
        steps.append(optax.scale(-rates.learning_rate))
        if optimizer.name == "sgd" and optimizer.decoupled_weight_decay:  # (p + step) * (1 - decay), whatever the rate
            steps += [optax.scale(1 - rates.weight_decay), optax.add_decayed_weights(-rates.weight_decay)]
        return optax.chain(*steps)
