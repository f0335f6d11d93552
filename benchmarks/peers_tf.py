"""Peers of `training_step.py` in TensorFlow. Each function makes what it needs for a shape and returns a training step.

All are compiled by XLA, as the RHN is: without it they are slower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from shapes import LEARNING_RATE, MAX_GRAD_NORM, WEIGHT_DECAY, Data, Shape, Step

import rhn
from rhn.spec.optimizers import PAPER_SGD
from rhn_tf.model import RHNLanguageModel
from rhn_tf.update import Update


class NaiveRHN(tf.Module):
    """The equations of the paper as one writes them down: one matrix per gate and micro-step, no layer above."""

    def __init__(self, config: rhn.RHNConfig) -> None:
        super().__init__()
        hidden, width, depth = config.hidden_size, config.embedding_width, config.recurrence_depth
        self.embedding = _uniform(config.vocab_size, width)
        self.input_h, self.input_t = _uniform(width, hidden), _uniform(width, hidden)
        self.recurrent_h = [_uniform(hidden, hidden) for _ in range(depth)]
        self.recurrent_t = [_uniform(hidden, hidden) for _ in range(depth)]
        self.bias_h = [_uniform(hidden) for _ in range(depth)]
        self.bias_t = [tf.Variable(tf.fill((hidden,), -2.0)) for _ in range(depth)]
        self.softmax_weight = None if config.tie_weights else _uniform(hidden, config.vocab_size)
        self.softmax_bias = _uniform(config.vocab_size)

    def __call__(self, tokens: tf.Tensor, s: tf.Tensor, masks: rhn.VariationalMasks) -> tuple[tf.Tensor, tf.Tensor]:
        """Tokens (B, T) and state (B, H) to logits (B, T, V) and state."""
        x = tf.gather(self.embedding, tokens) * masks.embedding[:, :, tf.newaxis]  # (B, T, E)
        input_mask, state_mask = masks.input[0][0], masks.state[0][0]  # (B, E), (B, H)
        outputs = tf.TensorArray(tf.float32, size=tokens.shape[1], element_shape=s.shape)
        for time in tf.range(tokens.shape[1]):
            x_now = x[:, time] * input_mask  # (B, E)
            for step in range(len(self.recurrent_h)):
                u = s * state_mask  # (B, H)
                z_h = tf.matmul(u, self.recurrent_h[step]) + self.bias_h[step]  # (B, H)
                z_t = tf.matmul(u, self.recurrent_t[step]) + self.bias_t[step]  # (B, H)
                if step == 0:
                    z_h, z_t = z_h + tf.matmul(x_now, self.input_h), z_t + tf.matmul(x_now, self.input_t)
                h, t = tf.tanh(z_h), tf.sigmoid(z_t)  # (B, H)
                s = h * t + s * (1 - t)  # (B, H)
            outputs = outputs.write(time, s)
        top = tf.transpose(outputs.stack(), (1, 0, 2)) * masks.output[:, tf.newaxis]  # (B, T, H)
        softmax_weight = tf.transpose(self.embedding) if self.softmax_weight is None else self.softmax_weight  # (H, V)
        return tf.tensordot(top, softmax_weight, axes=1) + self.softmax_bias, s


class LSTMLanguageModel(tf.Module):
    """Embedding, `keras.layers.LSTM`, softmax, with dropout between them."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        config, units = shape.config, shape.units_of_lstm()
        self.embedding = _uniform(config.vocab_size, units if config.tie_weights else config.embedding_width)
        self.lstms = [
            keras.layers.LSTM(units, return_sequences=True, return_state=True) for _ in range(shape.lstm_layers)
        ]
        features = self.embedding.shape[1]
        for lstm in self.lstms:
            lstm.build((shape.batch_size, shape.length, features))
            features = units
        self.softmax_weight = None if config.tie_weights else _uniform(units, config.vocab_size)
        self.softmax_bias = _uniform(config.vocab_size)
        self.rates = shape.rates

    def __call__(self, tokens: tf.Tensor, state: Sequence[list[tf.Tensor]]) -> tuple[tf.Tensor, list[list[tf.Tensor]]]:
        """Tokens (B, T) and per layer [h, c] of (B, H) to logits (B, T, V) and state."""
        x = tf.nn.dropout(tf.gather(self.embedding, tokens), self.rates.drop_input)  # (B, T, E)
        new_state = []
        for layer, (lstm, s) in enumerate(zip(self.lstms, state, strict=True)):
            if layer > 0:
                x = tf.nn.dropout(x, self.rates.drop_state)
            x, *s_next = lstm(x, initial_state=s)  # (B, T, H)
            new_state.append(s_next)
        top = tf.nn.dropout(x, self.rates.drop_output)
        softmax_weight = tf.transpose(self.embedding) if self.softmax_weight is None else self.softmax_weight  # (H, V)
        return tf.tensordot(top, softmax_weight, axes=1) + self.softmax_bias, new_state

    def parameters(self) -> list[tf.Variable]:
        """Everything that is trained."""
        return [*self.trainable_variables, *(weight.value for lstm in self.lstms for weight in lstm.trainable_weights)]


def naive_step(shape: Shape) -> Step:
    """One step of `NaiveRHN`."""
    data, model = Data(shape), NaiveRHN(shape.config)
    state = tf.zeros((shape.batch_size, shape.config.hidden_size))
    train = _trainer(model, list(model.trainable_variables))

    def step() -> None:
        nonlocal state
        tokens, targets = data.next_window()
        masks = _as_tensors(data.masks(tokens))
        loss, state = train(tf.constant(tokens, tf.int32), tf.constant(targets, tf.int32), state, masks)
        loss.numpy()

    return step


def lstm_step(shape: Shape) -> Step:
    """One step of `LSTMLanguageModel`."""
    data, model = Data(shape), LSTMLanguageModel(shape)
    zero = tf.zeros((shape.batch_size, shape.units_of_lstm()))
    state = [[zero, zero] for _ in range(shape.lstm_layers)]
    train = _trainer(model, model.parameters())

    def step() -> None:
        nonlocal state
        tokens, targets = data.next_window()
        loss, state = train(tf.constant(tokens, tf.int32), tf.constant(targets, tf.int32), state)
        loss.numpy()

    return step


def matmul_step(shape: Shape) -> Step:
    """The matrix products of one step of an RHN with one layer and shared masks, in order."""
    config, batch_size, length = shape.config, shape.batch_size, shape.length
    rows, hidden, depth = batch_size * length, config.hidden_size, config.recurrence_depth
    width, vocab_size, embedding_size = config.num_gates * hidden, config.vocab_size, config.embedding_width

    embedded, input_weight = tf.random.normal((rows, embedding_size)), tf.random.normal((embedding_size, width))
    recurrent_weights = [tf.random.normal((hidden, width)) for _ in range(depth)]
    transposed_weights = [tf.transpose(weight) for weight in recurrent_weights]  # what the forward is faster with
    softmax_weight = tf.random.normal((vocab_size, hidden))
    states = [tf.random.normal((length, batch_size, hidden)) for _ in range(depth)]
    gates = [tf.random.normal((length, batch_size, width)) for _ in range(depth)]
    top, logits = tf.random.normal((rows, hidden)), tf.random.normal((rows, vocab_size))

    def over_time(product: Callable[[tf.Tensor, int], tf.Tensor], result_size: int) -> list[tf.Tensor]:
        """The products of the last time step, per micro-step; those of the others are made and overwritten."""
        start = (tf.constant(0), [tf.zeros((batch_size, result_size))] * depth)
        _, results = tf.while_loop(
            lambda time, _: time < length,
            lambda time, _: (time + 1, [product(time, step) for step in range(depth)]),
            start,
            maximum_iterations=length,
        )
        return results

    # The operands are arguments: XLA would compute the products of constants when it compiles.
    @tf.function(jit_compile=True)
    def products(
        embedded: tf.Tensor,
        input_weight: tf.Tensor,
        recurrent_weights: list[tf.Tensor],
        transposed_weights: list[tf.Tensor],
        softmax_weight: tf.Tensor,
        states: list[tf.Tensor],
        gates: list[tf.Tensor],
        top: tf.Tensor,
        logits: tf.Tensor,
    ) -> list[tf.Tensor]:
        gate_rows = [tf.reshape(gate, (rows, width)) for gate in gates]
        return [
            tf.matmul(embedded, input_weight),
            *over_time(
                lambda time, step: tf.matmul(states[step][time], transposed_weights[step], transpose_b=True), width
            ),
            tf.matmul(top, softmax_weight, transpose_b=True),
            tf.matmul(logits, softmax_weight),
            tf.matmul(logits, top, transpose_a=True),
            *over_time(
                lambda time, step: tf.matmul(gates[step][time], recurrent_weights[step], transpose_b=True), hidden
            ),
            *(
                tf.matmul(tf.reshape(state, (rows, hidden)), gate, transpose_a=True)
                for state, gate in zip(states, gate_rows, strict=True)
            ),
            tf.matmul(embedded, gate_rows[0], transpose_a=True),
            tf.matmul(gate_rows[0], input_weight, transpose_b=True),
        ]

    weights = (input_weight, recurrent_weights, transposed_weights, softmax_weight)

    def step() -> None:
        results = products(embedded, *weights, states, gates, top, logits)
        results[-1].numpy()

    return step


def update_step(shape: Shape) -> Step:
    """Decay, norm, clipping and update of every parameter, from gradients that are there."""
    module = RHNLanguageModel(shape.config)
    module.build((None, None))
    parameters = [variable.value for variable in module.parameters]
    gradients = [tf.ones_like(parameter) for parameter in parameters]
    update = Update(PAPER_SGD, shape.config, parameters, {})

    @tf.function(jit_compile=True)
    def decayed(gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        return [g + WEIGHT_DECAY * p for g, p in zip(gradients, parameters, strict=True)]

    @tf.function
    def updated(gradients: list[tf.Tensor]) -> tf.Tensor:
        return update(decayed(gradients), *map(tf.constant, (LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM)))

    def step() -> None:
        updated(gradients).numpy()

    return step


def _trainer(model: Callable[..., tuple[tf.Tensor, object]], parameters: list[tf.Variable]) -> Callable[..., tuple]:
    """Loss, backward, clipping and update by the framework's own functions."""

    @tf.function(jit_compile=True)
    def train(tokens: tf.Tensor, targets: tf.Tensor, *inputs: object) -> tuple[tf.Tensor, object]:
        with tf.GradientTape() as tape:
            logits, new_state = model(tokens, *inputs)
            nll = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)  # (B, T)
            loss = tf.reduce_sum(nll) / len(tokens)
            decay = 0.5 * WEIGHT_DECAY * sum(tf.reduce_sum(tf.square(parameter)) for parameter in parameters)
        gradients, _ = tf.clip_by_global_norm(tape.gradient([loss, decay], parameters), MAX_GRAD_NORM)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.assign_sub(LEARNING_RATE * gradient)
        return loss, new_state

    return train


def _uniform(*shape: int) -> tf.Variable:
    return tf.Variable(tf.random.uniform(shape, -0.04, 0.04))


def _as_tensors(masks: rhn.VariationalMasks) -> rhn.VariationalMasks:
    return masks.map(lambda mask: tf.constant(mask, tf.float32))
