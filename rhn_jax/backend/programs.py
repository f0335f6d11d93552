"""The compiled functions of the backend; their arguments are a model's graph, its parameters and a window.

They are compiled once per architecture, window shape and precision of matrix products, which they read from JAX's
configuration.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from rhn.port_tools import NO_REGULARIZATION, Regularization, Window
from rhn_jax.backend.processes import sum_over_rows
from rhn_jax.loss import cross_entropy
from rhn_jax.update import Memory, Rates, Scalar, Tree, Update


@partial(jax.jit, static_argnames="graph")
def forward(graph: nnx.GraphDef, params: nnx.State, window: Window) -> tuple[Array, list[Array]]:
    """Logits (B, T, V), and the state after the window."""
    return nnx.merge(graph, params)(window.tokens, window.state, window.masks)


@jax.jit
def log_likelihoods(logits: Array, targets: Array) -> Array:
    """(B, T) in nats, from the logits (B, T, V) of `forward`: the large program is shared."""
    # Time first, as in the model's logits, so that they are not copied.
    return -cross_entropy(logits.swapaxes(0, 1), targets.T).T


@partial(jax.jit, static_argnames=("graph", "chunk"))
def log_likelihoods_in_chunks(
    graph: nnx.GraphDef, params: nnx.State, window: Window, chunk: int
) -> tuple[Array, list[Array]]:
    """As `log_likelihoods` after `forward`, and the state; with the logits of no more than `chunk` rows at once."""
    module = nnx.merge(graph, params)
    top = module.top(window.tokens, window.state, window.masks)
    rows = top.masked.reshape(-1, top.masked.shape[-1]), window.targets.T.reshape(-1)  # (T*B, H), (T*B,)
    scores = jax.lax.map(lambda row: -cross_entropy(module.logits(row[0]), row[1]), rows, batch_size=chunk)
    return scores.reshape(window.targets.T.shape).T, top.state


@jax.jit
def negative_sum(log_likelihoods: Array) -> Array:
    """The loss of a window."""
    return -log_likelihoods.sum()


def training_loss(
    graph: nnx.GraphDef, params: nnx.State, window: Window, regularization: Regularization
) -> tuple[Array, Array | None, list[Array]]:
    """Negative log-likelihood, summed over window and batch; what SPEC.md 5.11 adds to it, or None; and the state."""
    module = nnx.merge(graph, params)
    top = module.top(window.tokens, window.state, window.masks, window.length)
    changes = top.outputs[1:] - top.outputs[:-1]  # (T - 1, B, H)
    counts = None
    if window.length is not None:
        counts = jnp.arange(window.tokens.shape[1]) < window.length  # (T,)
        changes = jnp.where(counts[1:, None, None], changes, 0)
    nll = module.negative_log_likelihood(top.masked, window.targets.T, counts)
    # In the padding the outputs are zero already.
    terms = [
        coefficient * jnp.square(penalised).sum()
        for coefficient, penalised in zip(regularization, (top.masked, changes), strict=True)
        if coefficient is not None
    ]
    return nll, sum(terms) / module.config.hidden_size if terms else None, top.state


@partial(jax.jit, static_argnames=("graph", "mesh"))
def gradients(
    graph: nnx.GraphDef,
    params: nnx.State,
    window: Window,
    regularization: Regularization = NO_REGULARIZATION,
    mesh: Mesh | None = None,
) -> tuple[Array, list[Array], nnx.State]:
    """Loss (summed over time, mean over the batch, without the terms of decay and regularisation), state, gradients.

    The gradients are without weight decay, which `with_decay` adds.
    """
    batch_size = len(window.tokens)  # of all processes

    def loss_of(params: nnx.State, window: Window) -> tuple[Array, tuple[Array, list[Array]]]:
        nll, penalty, new_state = training_loss(graph, params, window, regularization)
        loss = nll / batch_size
        return loss if penalty is None else loss + penalty / batch_size, (loss, new_state)

    def of_rows(params: nnx.State, window: Window) -> tuple[Array, list[Array], nnx.State]:
        (_, (loss, new_state)), gradients = jax.value_and_grad(loss_of, has_aux=True)(params, window)
        return loss, new_state, gradients

    return of_rows(params, window) if mesh is None else sum_over_rows(mesh, of_rows, params, window)


def with_decay(gradients: Tree, params: Tree, weight_decay: Scalar) -> Tree:
    """The gradients of the loss with its term of weight decay."""
    return jax.tree.map(lambda g, p: g + weight_decay * p, gradients, params)


@partial(jax.jit, static_argnames="update", donate_argnames=("params", "memory"))
def apply_gradients(
    update: Update, params: nnx.State, memory: Memory, gradients: nnx.State, rates: Rates
) -> tuple[nnx.State, Memory, Array]:
    """Parameters and memory after one step, and norm of the gradients before clipping; `gradients` are without decay.

    The buffers of `params` and `memory` are used for their successors. Apart from `gradients`, one such program serves
    all windows.
    """
    if not update.optimizer.decoupled_weight_decay:
        gradients = with_decay(gradients, params, rates.weight_decay)
    return update(params, gradients, memory, rates)
