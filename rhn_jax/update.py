"""What a training step does with the gradients: `rhn.spec.reference.update` by optax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from rhn.spec.optimizers import Optimizer, OptimizerState

Tree = Any  # a pytree of arrays with the structure of the parameters
Scalar: TypeAlias = Array | np.floating[Any] | float


class Rates(NamedTuple):
    """What may change from step to step; scalars."""

    learning_rate: Scalar
    weight_decay: Scalar
    max_grad_norm: Scalar


class Memory(NamedTuple):
    """What an optimiser remembers from step to step.

    Attributes:
        optax: state of the transformation.
        averaged_steps: () integer, how many steps `average` is the mean of; None if the weights are not averaged.
        average: mean of the parameters after each of these steps; None likewise.
    """

    optax: optax.OptState
    averaged_steps: Array | None
    average: Tree | None


def update(optimizer: Optimizer, params: Tree, grads: Tree, memory: Memory, rates: Rates) -> tuple[Tree, Memory, Array]:
    """Parameters and memory after one step, and the global norm of the gradients before clipping.

    `grads` hold the weight decay unless it is decoupled.
    """
    updates, optax_state = _transformation(optimizer, rates).update(grads, memory.optax, params)
    params = optax.apply_updates(params, updates)
    averaged_steps, average = memory.averaged_steps, memory.average
    if averaged_steps is not None:
        averaged_steps = averaged_steps + 1
        average = jax.tree.map(lambda mean, p: mean + (p - mean) / averaged_steps.astype(p.dtype), average, params)
    return params, Memory(optax_state, averaged_steps, average), optax.tree.norm(grads)


def _transformation(optimizer: Optimizer, rates: Rates) -> optax.GradientTransformation:
    """Gradients to what is added to the parameters. `rates` may be tracers: the structure does not depend on them."""
    steps = [optax.clip_by_global_norm(rates.max_grad_norm)]
    if optimizer.name == "adam":
        steps.append(optax.scale_by_adam(optimizer.beta1, optimizer.beta2, optimizer.epsilon))
        if optimizer.decoupled_weight_decay:
            steps.append(optax.add_decayed_weights(rates.weight_decay))
    steps.append(optax.scale(-rates.learning_rate))
    if optimizer.name == "sgd" and optimizer.decoupled_weight_decay:  # (p + step) * (1 - decay), not scaled by the rate
        steps += [optax.scale(1 - rates.weight_decay), optax.add_decayed_weights(-rates.weight_decay)]
    return optax.chain(*steps)


def import_memory(
    optimizer: Optimizer, params: Tree, state: OptimizerState, from_contract: Callable[[dict[str, NDArray]], Tree]
) -> Memory:
    """The memory that `rhn.spec.optimizers` describes; `from_contract` takes tensors by the contract's names."""

    def remembered(kind: str) -> Tree | None:
        prefix = f"{kind}."
        named = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        return from_contract(named) if named else None

    optax_state = _transformation(optimizer, Rates(0.0, 0.0, 0.0)).init(params)
    if "step" in state:
        count = jnp.asarray(state["step"], jnp.int32)
        optax_state = optax.tree.set(optax_state, count=count, mu=remembered("mean"), nu=remembered("square"))
    if "averaged_steps" not in state:
        return Memory(optax_state, None, None)
    average = remembered("average")
    average = optax.tree.zeros_like(params) if average is None else average
    return Memory(optax_state, jnp.asarray(state["averaged_steps"], jnp.int32), average)


def export_memory(memory: Memory, to_contract: Callable[[Tree], dict[str, NDArray]]) -> OptimizerState:
    """Copies of the memory by the names of `rhn.spec.optimizers`; the inverse of `import_memory`."""
    state: OptimizerState = {}
    step = optax.tree.get(memory.optax, "count")
    if step is not None and step > 0:
        state["step"] = np.array(step)
        for kind, name in (("mean", "mu"), ("square", "nu")):
            state |= _prefixed(kind, to_contract(optax.tree.get(memory.optax, name)))
    if memory.averaged_steps is not None:
        state["averaged_steps"] = np.array(memory.averaged_steps)
        if memory.averaged_steps > 0:
            state |= _prefixed("average", to_contract(memory.average))
    return state


def _prefixed(kind: str, tensors: dict[str, NDArray]) -> OptimizerState:
    return {f"{kind}.{name}": value for name, value in tensors.items()}
