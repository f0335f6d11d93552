"""The specification, executable: forward, loss, hand-derived backward and training step in float64 NumPy.

Written for reading. Row vectors, `*` elementwise, `@` matrix product. Shapes: B batch, T time, V vocabulary,
E embedding, H hidden, L micro-steps, G gates. The forward accepts complex parameters, so that its derivative can be
had by complex-step differentiation, which owes nothing to the backward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rhn.spec.arguments import check_length, check_masks, check_state, check_targets, check_tokens
from rhn.spec.config import RHNConfig
from rhn.spec.masks import NO_MASKS, VariationalMasks
from rhn.spec.optimizers import Optimizer, OptimizerState
from rhn.spec.parameters import Parameters, check_parameters

Array = NDArray[Any]  # real or complex floats


# ---------------------------------------------------------------------------------------------------------------------
# Elementwise functions
# ---------------------------------------------------------------------------------------------------------------------


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), which never overflows in this form."""
    return 0.5 * np.tanh(0.5 * z) + 0.5


ACTIVATION: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "relu": lambda z: np.where(z.real > 0, z, 0.0),
}
# Derivative of each activation, as a function of its value h.
ACTIVATION_SLOPE: dict[str, Callable[[Array], Array]] = {
    "tanh": lambda h: 1.0 - h * h,
    "sigmoid": lambda h: h * (1.0 - h),
    "relu": lambda h: (h > 0) * 1.0,
}


# ---------------------------------------------------------------------------------------------------------------------
# One layer over a window (paper, equations 6 to 9)
# ---------------------------------------------------------------------------------------------------------------------


class LayerWeights(NamedTuple):
    """Tensors of one layer: input (G, E, H), recurrent (L, G, H, H), bias (L, G, H)."""

    input: Array
    recurrent: Array
    bias: Array


class MicroStep(NamedTuple):
    """What the backward needs of one micro-step; gate values are (B, H) each."""

    state_before: Array
    h: Array
    t: Array
    c: Array


def layer_forward(
    weights: LayerWeights,
    x: Array,
    state: Array,
    input_mask: Array | None = None,
    state_mask: Array | None = None,
    activation: str = "tanh",
    update_mask: Array | None = None,
) -> tuple[Array, list[list[MicroStep]]]:
    """One RHN layer over a window.

    Args:
        weights: of the layer; three gates in them mean that the carry gate is not coupled.
        x: (B, T, E) input.
        state: (B, H) before the window.
        input_mask: (M, B, E), or per time step (M, B, T, E), or None; M is 1 or G.
        state_mask: (M, B, H) or None.
        activation: of the candidate h.
        update_mask: (B, H) on the candidate h, or None.

    Returns:
        (B, T, H) states after each time step, and the micro-steps taken, `trace[time][level]`.
    """
    depth, num_gates = weights.bias.shape[:2]
    s = state  # (B, H)
    outputs, trace = [], []
    for time in range(x.shape[1]):
        steps = []
        for level in range(depth):
            z = []  # per gate (B, H)
            for gate in range(num_gates):
                u = s * _mask_of_gate(state_mask, gate)  # (B, H)
                z_gate = u @ weights.recurrent[level, gate] + weights.bias[level, gate]  # (B, H)
                if level == 0:
                    z_gate = z_gate + (x[:, time] * _mask_at(input_mask, time, gate)) @ weights.input[gate]
                z.append(z_gate)
            h = ACTIVATION[activation](z[0])  # (B, H)
            t = sigmoid(z[1])  # (B, H)
            c = 1.0 - t if num_gates == 2 else sigmoid(z[2])  # (B, H)
            steps.append(MicroStep(s, h, t, c))
            kept = 1.0 if update_mask is None else update_mask  # (B, H)
            s = h * kept * t + s * c  # (B, H): the carried s is never masked
        outputs.append(s)
        trace.append(steps)
    return np.stack(outputs, axis=1), trace


class LayerGradients(NamedTuple):
    """Derivatives of the loss with respect to what `layer_forward` takes."""

    weights: LayerWeights
    x: Array
    state: Array


def layer_backward(
    weights: LayerWeights,
    x: Array,
    trace: list[list[MicroStep]],
    d_outputs: Array,
    input_mask: Array | None = None,
    state_mask: Array | None = None,
    activation: str = "tanh",
    update_mask: Array | None = None,
) -> LayerGradients:
    """Derivatives of a scalar loss, given d loss / d outputs (B, T, H); the other arguments as in `layer_forward`."""
    depth, num_gates = weights.bias.shape[:2]
    d_weights = LayerWeights(*(np.zeros_like(w) for w in weights))
    d_x = np.zeros_like(x)  # (B, T, E)
    d_s = np.zeros_like(d_outputs[:, 0])  # (B, H)
    for time in reversed(range(x.shape[1])):
        d_s = d_s + d_outputs[:, time]
        for level in reversed(range(depth)):
            s, h, t, c = trace[time][level]  # (B, H) each
            kept = 1.0 if update_mask is None else update_mask  # (B, H)
            d_h = d_s * t * kept
            d_t = d_s * h * kept if num_gates == 3 else d_s * (h * kept - s)  # coupled: c = 1 - t depends on t too
            d_z = [d_h * ACTIVATION_SLOPE[activation](h), d_t * t * (1.0 - t)]  # per gate (B, H)
            if num_gates == 3:
                d_z.append(d_s * s * c * (1.0 - c))
            d_s = d_s * c  # the carry path
            for gate in range(num_gates):
                mask = _mask_of_gate(state_mask, gate)
                d_weights.recurrent[level, gate] += (s * mask).T @ d_z[gate]
                d_weights.bias[level, gate] += d_z[gate].sum(axis=0)
                d_s = d_s + (d_z[gate] @ weights.recurrent[level, gate].T) * mask
                if level == 0:
                    mask = _mask_at(input_mask, time, gate)
                    d_weights.input[gate] += (x[:, time] * mask).T @ d_z[gate]
                    d_x[:, time] += (d_z[gate] @ weights.input[gate].T) * mask
    return LayerGradients(d_weights, d_x, d_s)


def _mask_of_gate(mask: Array | None, gate: int) -> Array | float:
    """The mask (B, features) that `gate` sees: its own, the one that all share, or none."""
    if mask is None:
        return 1.0
    return mask[gate] if len(mask) > 1 else mask[0]


def _mask_at(mask: Array | None, time: int, gate: int) -> Array | float:
    """Likewise of a mask that may be per time step, (M, B, T, features)."""
    return _mask_of_gate(mask[:, :, time] if mask is not None and mask.ndim == 4 else mask, gate)


# ---------------------------------------------------------------------------------------------------------------------
# The language model
# ---------------------------------------------------------------------------------------------------------------------


class _Trace(NamedTuple):
    """What the backward of the whole model needs."""

    tokens: NDArray[np.integer]
    masks: VariationalMasks
    layers: list[tuple[LayerWeights, Array, list[list[MicroStep]]]]  # weights, input, micro-steps
    top: Array  # (B, T, H) input of the softmax, masked; (B, T, E) if it is projected
    outputs: Array  # (B, T, H) of the top layer, not masked
    unprojected: Array  # (B, T, H), masked
    logits: Array  # (B, T, V)
    state: list[Array]  # per layer (B, H)


def zero_state(config: RHNConfig, batch_size: int) -> list[NDArray[np.float64]]:
    """The state before the first token: per layer zeros (B, H)."""
    return [np.zeros((batch_size, config.hidden_size)) for _ in range(config.num_layers)]


def forward(
    config: RHNConfig,
    parameters: Mapping[str, Array],
    tokens: ArrayLike,
    state: Sequence[ArrayLike] | None = None,
    masks: VariationalMasks | None = None,
) -> tuple[Array, list[Array]]:
    """Logits (B, T, V) and the state after the window, per layer (B, H).

    Args:
        config: the architecture.
        parameters: as `parameter_shapes` names them, real or complex; computed with in double precision.
        tokens: (B, T) integers below V.
        state: before the window, per layer (B, H); None is zero.
        masks: None drops nothing.

    Raises:
        ValueError: something does not fit the configuration.
    """
    trace = _forward(config, parameters, tokens, state, masks)
    return trace.logits, trace.state


def cross_entropy(logits: Array, targets: ArrayLike) -> Array:
    """(B, T) negative log-likelihoods in nats of `targets` (B, T) under `logits` (B, T, V).

    Raises:
        ValueError: targets are not (B, T) integers below V.
    """
    targets = check_targets(targets, logits.shape[:-1], logits.shape[-1])
    shifted = logits - logits.real.max(axis=-1, keepdims=True)  # (B, T, V)
    log_normaliser = np.log(np.exp(shifted).sum(axis=-1))  # (B, T)
    return log_normaliser - np.take_along_axis(shifted, targets[..., None], axis=-1)[..., 0]


def cut(
    tokens: ArrayLike, targets: ArrayLike, masks: VariationalMasks | None, length: int | None
) -> tuple[NDArray[Any], NDArray[Any], VariationalMasks | None]:
    """The first `length` time steps; None is all.

    Raises:
        ValueError: there are not so many.
    """
    tokens, targets = np.asarray(tokens), np.asarray(targets)
    if length is None:
        return tokens, targets, masks
    check_length(length, tokens)
    steps = slice(0, length)
    return tokens[:, steps], targets[:, steps], None if masks is None else masks.columns(steps)


def loss(
    config: RHNConfig,
    parameters: Mapping[str, Array],
    tokens: ArrayLike,
    targets: ArrayLike,
    state: Sequence[ArrayLike] | None = None,
    masks: VariationalMasks | None = None,
    weight_decay: float = 0.0,
    activation_regularization: float = 0.0,
    temporal_activation_regularization: float = 0.0,
    length: int | None = None,
) -> Array:
    """The scalar that `gradients` differentiates: cross-entropy summed over time and averaged over the batch, plus
    0.5 * weight_decay * sum of squares of every parameter, plus what the regularisation of activations adds."""
    tokens, targets, masks = cut(tokens, targets, masks, length)
    trace = _forward(config, parameters, tokens, state, masks)
    data_loss = cross_entropy(trace.logits, targets).sum() / len(trace.logits)
    changes = trace.outputs[:, 1:] - trace.outputs[:, :-1]  # (B, T - 1, H)
    units = len(trace.outputs) * config.hidden_size  # B*H
    data_loss = data_loss + activation_regularization * np.sum(np.square(trace.unprojected)) / units
    data_loss = data_loss + temporal_activation_regularization * np.sum(np.square(changes)) / units
    return data_loss + 0.5 * weight_decay * sum(np.sum(np.square(np.asarray(p))) for p in parameters.values())


def gradients(
    config: RHNConfig,
    parameters: Mapping[str, Array],
    tokens: ArrayLike,
    targets: ArrayLike,
    state: Sequence[ArrayLike] | None = None,
    masks: VariationalMasks | None = None,
    weight_decay: float = 0.0,
    activation_regularization: float = 0.0,
    temporal_activation_regularization: float = 0.0,
    length: int | None = None,
) -> tuple[float, Parameters, list[Array]]:
    """Loss without weight decay and regularisation, its gradients with them, and the state after the window.

    Arguments and errors as in `forward`; `targets` are (B, T) integers below V. With a `length`, only so many time
    steps are there (SPEC.md 3.5). The two regularisations are those of SPEC.md 5.11.
    """
    tokens, targets, masks = cut(tokens, targets, masks, length)
    p = {name: np.asarray(value, dtype=np.float64) for name, value in parameters.items()}
    trace = _forward(config, p, tokens, state, masks)
    batch_size = len(trace.tokens)
    data_loss = cross_entropy(trace.logits, targets).sum() / batch_size

    # Softmax: d loss / d logits = (probabilities - one-hot) / B.
    probabilities = np.exp(trace.logits - trace.logits.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    one_hot = np.asarray(targets)[..., None] == np.arange(config.vocab_size)  # (B, T, V)
    d_logits = (probabilities - one_hot) / batch_size  # (B, T, V)
    d_softmax_weight = np.einsum("bth,btv->hv", trace.top, d_logits)  # (H, V)
    grads: Parameters = {"softmax.bias": d_logits.sum(axis=(0, 1))}
    d_top = d_logits @ _softmax_weight(config, p).T  # (B, T, H)
    if config.has_projection:
        grads["projection.weight"] = np.einsum("bth,bte->he", trace.unprojected, d_top)  # (H, E)
        d_top = d_top @ p["projection.weight"].T  # (B, T, H)
    units = batch_size * config.hidden_size  # B*H
    if activation_regularization:
        d_top = d_top + 2.0 * activation_regularization / units * trace.unprojected
    if trace.masks.output is not None:
        d_top = d_top * _over_time(trace.masks.output)
    if temporal_activation_regularization:
        d_changes = 2.0 * temporal_activation_regularization / units * np.diff(trace.outputs, axis=1)  # (B, T - 1, H)
        d_top = d_top + np.pad(d_changes, ((0, 0), (1, 0), (0, 0))) - np.pad(d_changes, ((0, 0), (0, 1), (0, 0)))

    # Layers, from the top.
    d_x = d_top
    for i in reversed(range(config.num_layers)):
        weights, x, micro_steps = trace.layers[i]
        input_mask, state_mask, update_mask = trace.masks.of_layer(i)
        layer = layer_backward(weights, x, micro_steps, d_x, input_mask, state_mask, config.activation, update_mask)
        grads[f"layers.{i}.input_weight"] = layer.weights.input
        grads[f"layers.{i}.recurrent_weight"] = layer.weights.recurrent
        grads[f"layers.{i}.bias"] = layer.weights.bias
        d_x = layer.x

    # Embedding: equal tokens add up; a tied softmax adds its share.
    if trace.masks.embedding is not None:
        d_x = d_x * trace.masks.embedding[:, :, None]
    grads["embedding"] = np.zeros_like(p["embedding"])
    np.add.at(grads["embedding"], trace.tokens, d_x)
    if config.tie_weights:
        grads["embedding"] += d_softmax_weight.T
    else:
        grads["softmax.weight"] = d_softmax_weight
    return float(data_loss), {name: grads[name] + weight_decay * value for name, value in p.items()}, trace.state


def gradients_of_processes(
    processes: int,
    config: RHNConfig,
    parameters: Mapping[str, Array],
    tokens: ArrayLike,
    targets: ArrayLike,
    state: Sequence[ArrayLike] | None = None,
    masks: VariationalMasks | None = None,
    weight_decay: float = 0.0,
    activation_regularization: float = 0.0,
    temporal_activation_regularization: float = 0.0,
    length: int | None = None,
) -> tuple[float, Parameters, list[Array]]:
    """As `gradients`, the way in which several processes compute them together, each with its rows of the batch."""
    tokens, targets = np.asarray(tokens), np.asarray(targets)
    batch_size = len(tokens)
    own = batch_size // processes
    share = own / batch_size  # the mean over the rows of a process, as part of the mean over the batch
    data_loss, total, states = 0.0, {name: np.zeros_like(value) for name, value in parameters.items()}, []
    for process in range(processes):
        rows = slice(process * own, (process + 1) * own)
        own_state = state and [np.asarray(s)[rows] for s in state]
        own_masks = None if masks is None else masks.rows(rows)
        own_window = tokens[rows], targets[rows], own_state, own_masks
        regularization = activation_regularization, temporal_activation_regularization
        own_loss, grads, new_state = gradients(config, parameters, *own_window, 0.0, *regularization, length)
        data_loss += share * own_loss
        total = {name: total[name] + share * g for name, g in grads.items()}
        states.append(new_state)
    with_decay = {name: g + weight_decay * np.asarray(parameters[name]) for name, g in total.items()}
    return data_loss, with_decay, [np.concatenate(rows) for rows in zip(*states, strict=True)]


def global_norm(grads: Mapping[str, ArrayLike]) -> float:
    """Euclidean norm of all gradients taken as one vector."""
    return float(np.sqrt(sum(np.sum(np.square(np.asarray(g, dtype=np.float64))) for g in grads.values())))


def clip(grads: Mapping[str, Array], max_grad_norm: float, max_grad_value: float | None = None) -> Parameters:
    """The gradients scaled by max_grad_norm / max(norm, max_grad_norm); then every entry brought into
    [-max_grad_value, max_grad_value]."""
    scale = max_grad_norm / max(global_norm(grads), max_grad_norm)
    scaled = {name: scale * g for name, g in grads.items()}
    if max_grad_value is None:
        return scaled
    return {name: np.clip(g, -max_grad_value, max_grad_value) for name, g in scaled.items()}


def sgd_update(
    parameters: Mapping[str, Array], grads: Mapping[str, Array], learning_rate: float, max_grad_norm: float
) -> Parameters:
    """New parameters after one step of plain SGD, the gradients clipped by their norm."""
    return {name: parameters[name] - learning_rate * g for name, g in clip(grads, max_grad_norm).items()}


def update(
    optimizer: Optimizer,
    parameters: Mapping[str, Array],
    grads: Mapping[str, Array],
    state: OptimizerState,
    learning_rate: float,
    weight_decay: float,
    max_grad_norm: float,
) -> tuple[Parameters, OptimizerState]:
    """New parameters and optimiser state after one step.

    `grads` hold the weight decay unless it is decoupled. They are clipped first.
    """
    shrink = weight_decay if optimizer.decoupled_weight_decay else 0.0
    new_state = dict(state)
    new: Parameters = {}
    clipped = clip(grads, max_grad_norm, optimizer.max_grad_value)
    if optimizer.name == "sgd":
        for name, p in parameters.items():
            direction = clipped[name]
            if optimizer.momentum:
                direction = optimizer.momentum * state.get(f"momentum.{name}", 0.0) + direction
                new_state[f"momentum.{name}"] = direction
            new[name] = (p - learning_rate * direction) * (1.0 - shrink)
    else:
        step = int(state.get("step", 0)) + 1
        new_state["step"] = np.array(step)
        for name, p in parameters.items():
            g = clipped[name]
            mean = optimizer.beta1 * state.get(f"mean.{name}", 0.0) + (1 - optimizer.beta1) * g
            square = optimizer.beta2 * state.get(f"square.{name}", 0.0) + (1 - optimizer.beta2) * g * g
            new_state[f"mean.{name}"], new_state[f"square.{name}"] = mean, square
            mean_unbiased = mean / (1 - optimizer.beta1**step)
            square_unbiased = square / (1 - optimizer.beta2**step)
            decayed = p * (1.0 - learning_rate * shrink)
            new[name] = decayed - learning_rate * mean_unbiased / (np.sqrt(square_unbiased) + optimizer.epsilon)
    if "averaged_steps" in state:
        steps = int(state["averaged_steps"]) + 1
        new_state["averaged_steps"] = np.array(steps)
        for name, p in new.items():
            before = state.get(f"average.{name}", 0.0)
            new_state[f"average.{name}"] = before + (p - before) / steps
    return new, new_state


def _forward(
    config: RHNConfig,
    parameters: Mapping[str, Array],
    tokens: ArrayLike,
    state: Sequence[ArrayLike] | None,
    masks: VariationalMasks | None,
) -> _Trace:
    check_parameters(config, parameters)
    tokens = check_tokens("tokens", tokens, config.vocab_size)
    masks = NO_MASKS if masks is None else masks
    check_masks(config, masks, *tokens.shape)
    state = zero_state(config, len(tokens)) if state is None else [np.asarray(s, dtype=np.float64) for s in state]
    check_state(config, state, len(tokens))
    carried = 1.0 if masks.carried is None else masks.carried[:, None]  # (B, 1)
    p = {name: np.asarray(value, np.result_type(value, np.float64)) for name, value in parameters.items()}

    x = p["embedding"][tokens]  # (B, T, E)
    if masks.embedding is not None:
        x = x * masks.embedding[:, :, None]
    layers, new_state = [], []
    for i in range(config.num_layers):
        weights = LayerWeights(*(p[f"layers.{i}.{name}"] for name in ("input_weight", "recurrent_weight", "bias")))
        input_mask, state_mask, update_mask = masks.of_layer(i)
        outputs, micro_steps = layer_forward(
            weights, x, carried * np.asarray(state[i]), input_mask, state_mask, config.activation, update_mask
        )
        layers.append((weights, x, micro_steps))
        new_state.append(outputs[:, -1])
        x = outputs  # (B, T, H)
    unprojected = x if masks.output is None else x * _over_time(masks.output)  # (B, T, H)
    top = unprojected @ p["projection.weight"] if config.has_projection else unprojected  # (B, T, E), or (B, T, H)
    logits = top @ _softmax_weight(config, p) + p["softmax.bias"]  # (B, T, V)
    return _Trace(tokens, masks, layers, top, x, unprojected, logits, new_state)


def _over_time(output_mask: Array) -> Array:
    """(B, T, H), or (B, 1, H) of a mask that is constant over time."""
    return output_mask if output_mask.ndim == 3 else output_mask[:, None, :]


def _softmax_weight(config: RHNConfig, parameters: Mapping[str, NDArray]) -> NDArray:
    """(H, V); (E, V) if the top is projected."""
    return parameters["embedding"].T if config.tie_weights else parameters["softmax.weight"]
