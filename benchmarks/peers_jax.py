"""Peers of `training_step.py` in JAX. Each function makes what it needs for a shape and returns one training step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array, lax
from shapes import LEARNING_RATE, MAX_GRAD_NORM, SEED, WEIGHT_DECAY, Data, Shape, Step

import rhn
from rhn.spec.optimizers import PAPER_SGD
from rhn_jax.model import RHNLanguageModel
from rhn_jax.update import Memory, Rates, Update

uniform = nnx.initializers.uniform(0.04)


class NaiveCell(nnx.RNNCellBase):
    """The equations of the paper as one writes them down: one `nnx.Linear` per gate and micro-step."""

    def __init__(self, config: rhn.RHNConfig, rngs: nnx.Rngs) -> None:
        hidden = config.hidden_size
        self.hidden_size = hidden
        self.input_h = nnx.Linear(config.embedding_width, hidden, use_bias=False, kernel_init=uniform, rngs=rngs)
        self.input_t = nnx.Linear(config.embedding_width, hidden, use_bias=False, kernel_init=uniform, rngs=rngs)
        self.recurrent_h = nnx.List(
            nnx.Linear(hidden, hidden, kernel_init=uniform, rngs=rngs) for _ in range(config.recurrence_depth)
        )
        self.recurrent_t = nnx.List(
            nnx.Linear(hidden, hidden, kernel_init=uniform, bias_init=nnx.initializers.constant(-2.0), rngs=rngs)
            for _ in range(config.recurrence_depth)
        )

    def __call__(self, s: Array, x: Array, state_mask: Array) -> Array:
        """The state (B, H) after one time step, given that before, masked input (B, E) and a mask (B, H)."""
        for step, (recurrent_h, recurrent_t) in enumerate(zip(self.recurrent_h, self.recurrent_t, strict=True)):
            u = s * state_mask  # (B, H)
            z_h, z_t = recurrent_h(u), recurrent_t(u)  # (B, H)
            if step == 0:
                z_h, z_t = z_h + self.input_h(x), z_t + self.input_t(x)
            h, t = jnp.tanh(z_h), nnx.sigmoid(z_t)  # (B, H)
            s = h * t + s * (1 - t)  # (B, H)
        return s


class NaiveRHN(nnx.Module):
    """Embedding, `NaiveCell` under `lax.scan`, softmax."""

    def __init__(self, config: rhn.RHNConfig, rngs: nnx.Rngs) -> None:
        self.embedding = nnx.Embed(config.vocab_size, config.embedding_width, embedding_init=uniform, rngs=rngs)
        self.cell = NaiveCell(config, rngs)
        self.softmax = None
        if not config.tie_weights:
            self.softmax = nnx.Linear(config.hidden_size, config.vocab_size, use_bias=False, rngs=rngs)
        self.softmax_bias = nnx.Param(jnp.zeros(config.vocab_size))

    def __call__(self, s: Array, tokens: Array, masks: rhn.VariationalMasks) -> tuple[Array, Array]:
        """State (B, H) and tokens (B, T) to state and logits (B, T, V)."""
        x = self.embedding(tokens) * masks.embedding[..., None] * masks.input[0][0][:, None]  # (B, T, E)
        state_mask = masks.state[0][0]  # (B, H)

        def time_step(s: Array, x_now: Array) -> tuple[Array, Array]:
            s = self.cell(s, x_now, state_mask)  # (B, H)
            return s, s

        s, outputs = lax.scan(time_step, s, x.swapaxes(0, 1))  # (B, H), (T, B, H)
        top = outputs.swapaxes(0, 1) * masks.output[:, None]  # (B, T, H)
        logits = self.embedding.attend(top) if self.softmax is None else self.softmax(top)  # (B, T, V)
        return s, logits + self.softmax_bias[...]


class LSTMLanguageModel(nnx.Module):
    """Embedding, `nnx.RNN` of `nnx.OptimizedLSTMCell` per layer, softmax, with dropout between them."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs) -> None:
        config, units = shape.config, shape.units_of_lstm()
        embedding_size = units if config.tie_weights else config.embedding_width
        self.embedding = nnx.Embed(config.vocab_size, embedding_size, embedding_init=uniform, rngs=rngs)
        self.layers = nnx.List(
            nnx.RNN(nnx.OptimizedLSTMCell(embedding_size if layer == 0 else units, units, rngs=rngs), return_carry=True)
            for layer in range(shape.lstm_layers)
        )
        rates = shape.rates
        self.drop_input = nnx.Dropout(rates.drop_input, rngs=rngs)
        self.drop_between = nnx.Dropout(rates.drop_state, rngs=rngs)
        self.drop_output = nnx.Dropout(rates.drop_output, rngs=rngs)
        self.softmax = None if config.tie_weights else nnx.Linear(units, config.vocab_size, use_bias=False, rngs=rngs)
        self.softmax_bias = nnx.Param(jnp.zeros(config.vocab_size))

    def __call__(self, carry: list[Any], tokens: Array) -> tuple[list[Any], Array]:
        """Carry per layer and tokens (B, T) to carry and logits (B, T, V)."""
        x = self.drop_input(self.embedding(tokens))  # (B, T, E)
        new_carry = []
        for layer, (rnn, carry_of_layer) in enumerate(zip(self.layers, carry, strict=True)):
            if layer > 0:
                x = self.drop_between(x)
            after, x = rnn(x, initial_carry=carry_of_layer)  # (B, T, units)
            new_carry.append(after)
        top = self.drop_output(x)
        logits = self.embedding.attend(top) if self.softmax is None else self.softmax(top)  # (B, T, V)
        return new_carry, logits + self.softmax_bias[...]


def naive_step(shape: Shape) -> Step:
    """One step of `NaiveRHN`."""
    data = Data(shape)
    model = NaiveRHN(shape.config, nnx.Rngs(SEED))
    carry = jnp.zeros((shape.batch_size, shape.config.hidden_size))
    update = _trainer(model)

    def step() -> None:
        nonlocal carry
        tokens, targets = data.next_window()
        masks = jax.tree.map(lambda mask: mask.astype(np.float32), data.masks(tokens))
        carry = update(carry, targets, tokens, masks)

    return step


def lstm_step(shape: Shape) -> Step:
    """One step of `LSTMLanguageModel`."""
    data, units = Data(shape), shape.units_of_lstm()
    model = LSTMLanguageModel(shape, nnx.Rngs(SEED))
    carry = [(jnp.zeros((shape.batch_size, units)),) * 2 for _ in range(shape.lstm_layers)]
    update = _trainer(model)

    def step() -> None:
        nonlocal carry
        tokens, targets = data.next_window()
        carry = update(carry, targets, tokens)

    return step


def matmul_step(shape: Shape) -> Step:
    """The matrix products of one step of an RHN with one layer and shared masks, in order, in one compiled function.

    Those of the recurrence take in each other's results, as in the RHN: otherwise XLA runs several of them at once,
    which is slower, since the weights of two do not fit into the cache.
    """
    config, batch_size, length = shape.config, shape.batch_size, shape.length
    rows, hidden, depth = batch_size * length, config.hidden_size, config.recurrence_depth
    num_gates, vocab_size, embedding_size = config.num_gates, config.vocab_size, config.embedding_width
    width = num_gates * hidden
    generator = np.random.default_rng(SEED)

    def draw(*size: int) -> Array:
        return jnp.asarray(generator.standard_normal(size, dtype=np.float32))

    embedded, input_weight, softmax_weight = (
        draw(rows, embedding_size),
        draw(embedding_size, width),
        draw(vocab_size, hidden),
    )
    recurrent_weights = [draw(hidden, width) / hidden**0.5 for _ in range(depth)]  # neither explode nor die out
    transposed_weights = [jnp.copy(weight.T) for weight in recurrent_weights]  # what the forward is faster with
    states, gates = [draw(rows, hidden) for _ in range(depth)], [draw(rows, width) for _ in range(depth)]
    top, logits = draw(rows, hidden), draw(rows, vocab_size)

    @jax.jit
    def products(
        embedded: Array,
        input_weight: Array,
        recurrent_weights: list[Array],
        transposed_weights: list[Array],
        softmax_weight: Array,
        states: list[Array],
        gates: list[Array],
        top: Array,
        logits: Array,
    ) -> list[Array]:
        def forward(s: Array, _: None) -> tuple[Array, None]:
            for weight in transposed_weights:
                s = (s @ weight.T)[:, :hidden]  # (B, H)
            return s, None

        def backward(s: Array, _: None) -> tuple[Array, None]:
            for weight in reversed(recurrent_weights):
                s = jnp.tile(s, (1, num_gates)) @ weight.T  # (B, H)
            return s, None

        return [
            embedded @ input_weight,
            lax.scan(forward, states[0][:batch_size], length=length)[0],
            top @ softmax_weight.T,
            logits @ softmax_weight,
            logits.T @ top,
            lax.scan(backward, states[0][:batch_size], length=length)[0],
            *[s.T @ gate for s, gate in zip(states, gates, strict=True)],
            embedded.T @ gates[0],
            gates[0] @ input_weight.T,
        ]

    weights = (input_weight, recurrent_weights, transposed_weights, softmax_weight)

    def step() -> None:
        jax.block_until_ready(products(embedded, *weights, states, gates, top, logits))

    return step


def update_step(shape: Shape) -> Step:
    """Decay, norm, clipping and update of every parameter, from gradients that are there."""
    params = nnx.state(RHNLanguageModel(shape.config, rngs=nnx.Rngs(SEED)))
    gradients = jax.tree.map(jnp.ones_like, params)
    update, rates = Update(PAPER_SGD), Rates(LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM)
    memory = update.memory(params, {}, lambda tensors: tensors)

    @partial(jax.jit, donate_argnums=(0, 1))
    def updated(params: nnx.State, memory: Memory, gradients: nnx.State) -> tuple[nnx.State, Memory, Array]:
        decayed = jax.tree.map(lambda g, p: g + WEIGHT_DECAY * p, gradients, params)
        return update(params, decayed, memory, rates)

    def step() -> None:
        nonlocal params, memory
        params, memory, _ = jax.block_until_ready(updated(params, memory, gradients))

    return step


def _trainer(model: nnx.Module) -> Callable[..., Any]:
    """Loss, gradient, clipping and update by the framework's own functions; returns carry after the window."""
    optimizer = nnx.Optimizer(
        model,
        optax.chain(
            optax.add_decayed_weights(WEIGHT_DECAY), optax.clip_by_global_norm(MAX_GRAD_NORM), optax.sgd(LEARNING_RATE)
        ),
        wrt=nnx.Param,
    )

    @partial(nnx.jit, donate_argnums=(0, 1))
    def update(model: nnx.Module, optimizer: nnx.Optimizer, carry: Any, targets: Array, *inputs: Any) -> Any:
        def loss_of(model: Any) -> tuple[Array, Any]:
            new_carry, logits = model(carry, *inputs)
            losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, targets)  # (B, T)
            return losses.sum() / len(targets), new_carry

        grads, new_carry = nnx.grad(loss_of, has_aux=True)(model)
        optimizer.update(model, grads)
        return new_carry

    def step(carry: Any, targets: Any, *inputs: Any) -> Any:
        carry = update(model, optimizer, carry, targets, *inputs)
        jax.block_until_ready(nnx.state(model, nnx.Param))
        return carry

    return step
