"""The checks: what is computed with a model in every case. Each check returns the tensors that are then compared.

The same functions are applied to the reference, and its answers are the expected values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rhn.backend import Layer, Model
from rhn_conformance.case import Check, Inputs, LayerInputs, Tensors, Window


def _parameters(model: Model, inputs: Inputs) -> Tensors:
    """The number of parameters, and all parameters, bit for bit."""
    return {"count": np.array(model.parameter_count), **model.parameters()}


def _forward(model: Model, inputs: Inputs) -> Tensors:
    return _read(model, inputs.windows(), inputs.state)


def _loss(model: Model, inputs: Inputs) -> Tensors:
    step = inputs.steps[0]
    window = step.window
    arguments = window.tokens, window.targets, inputs.state, window.masks, step.weight_decay
    loss, _, state = model.gradients(*arguments, **step.extras)
    return {"loss": np.array(loss), **_named_state(state)}


def _evaluation(model: Model, inputs: Inputs) -> Tensors:
    window = inputs.steps[0].window
    nll, state = model.evaluate_step(window.tokens, window.targets, _state_or_zero(model, inputs), window.masks)
    return {"nll": model.to_numpy(nll), **_state_from_device(model, state)}


def _gradients(model: Model, inputs: Inputs) -> Tensors:
    step = inputs.steps[0]
    window = step.window
    arguments = window.tokens, window.targets, inputs.state, window.masks, step.weight_decay
    _, gradients, _ = model.gradients(*arguments, **step.extras)
    return gradients


def _hand_over(model: Model, inputs: Inputs) -> Tensors:
    """Two windows in a row; the state after the first goes unchanged into the second."""
    state = _state_or_zero(model, inputs)
    tensors: Tensors = {}
    for number, window in enumerate(inputs.windows(), start=1):
        scores, state = model.log_likelihoods(window.tokens, window.targets, state, window.masks)
        tensors[f"window {number}: log_likelihoods"] = model.to_numpy(scores)
    return {**tensors, **_state_from_device(model, state)}


def _rows(model: Model, inputs: Inputs) -> Tensors:
    """Every row is replaced by the first. All rows must give what the first row gave beside other rows."""
    state = None if inputs.state is None else [np.repeat(s[:1], len(s), axis=0) for s in inputs.state]
    return _read(model, [window.first_row_everywhere() for window in inputs.windows()], state)


def training(model: Model, inputs: Inputs) -> Iterator[Tensors]:
    """After each of several training steps: loss, gradient norm, state and every weight."""
    if inputs.averaging:
        model.load_optimizer_state({"averaged_steps": np.array(0)})
    state = _state_or_zero(model, inputs)
    for step in inputs.steps:
        window = step.window
        loss, state = model.train_step(
            window.tokens,
            window.targets,
            state,
            window.masks,
            step.learning_rate,
            step.weight_decay,
            step.max_grad_norm,
            **step.extras,
        )
        yield {
            "loss": model.to_numpy(loss),
            "grad_norm": model.to_numpy(model.last_grad_norm),
            **_state_from_device(model, state),
            **model.parameters(),
        }


def _training(model: Model, inputs: Inputs) -> Tensors:
    return {
        f"step {number}: {name}": tensor
        for number, tensors in enumerate(training(model, inputs), start=1)
        for name, tensor in tensors.items()
    }


def _optimiser(model: Model, inputs: Inputs) -> Tensors:
    """The state of the optimiser after the training."""
    return model.optimizer_state()


def _layer_parameters(layer: Layer, inputs: LayerInputs) -> Tensors:
    """All parameters, bit for bit."""
    return layer.parameters()


def _layer_forward(layer: Layer, inputs: LayerInputs) -> Tensors:
    outputs, state = layer.forward(inputs.x, inputs.state, inputs.lengths, inputs.masks)
    return {"outputs": outputs, **_named_state(state)}


def _layer_gradients(layer: Layer, inputs: LayerInputs) -> Tensors:
    """Gradients of the weights, of the input and of the state before the first time step."""
    parameters, d_x, d_state = layer.gradients(
        inputs.x, inputs.d_outputs, inputs.d_state, inputs.state, inputs.lengths, inputs.masks
    )
    return {**parameters, "x": d_x, **_named_state(d_state)}


def _trajectory(model: Model, inputs: Inputs) -> Tensors:
    """Many steps: the loss of each, and the weights after the last."""
    losses = [tensors["loss"] for tensors in training(model, inputs)]
    return {"losses": np.array(losses), **model.parameters()}


CHECKS: tuple[Check, ...] = (
    Check("parameters", ("1.3", "1.5"), _parameters),
    Check("forward", ("3.2",), _forward),
    Check("loss", ("5.1", "5.2"), _loss),
    Check("evaluation", ("5.6",), _evaluation),
    Check("gradients", ("5.3",), _gradients),
    Check("hand-over", ("3.2",), _hand_over),
    Check("rows", ("3.3",), _rows, applies=lambda inputs: len(inputs.double_window.tokens) > 1),
    Check("training", ("3.4", "4.6", "5.3", "5.4", "5.5"), _training),
    Check("optimiser", (), _optimiser, applies=lambda inputs: inputs.optimizer_remembers),
)
LAYER_CHECKS: tuple[Check, ...] = (
    Check("parameters", ("7.5",), _layer_parameters),
    Check("forward", (), _layer_forward),
    Check("gradients", (), _layer_gradients),
)
TRAJECTORY = Check("trajectory", ("3.4", "4.6", "5.5"), _trajectory)


def checks_of(inputs: Inputs) -> list[Check]:
    """The checks of `CHECKS` that make sense for these inputs."""
    return [check for check in CHECKS if check.applies(inputs)]


def _read(model: Model, windows: Sequence[Window], state: list[NDArray] | None) -> Tensors:
    """The logits of windows that are read one after the other, and the state after the last.

    They are as long as the windows of all other checks, so a backend that compiles its forward does it once.
    """
    logits = []
    for window in windows:
        values, state = model.forward(window.tokens, state, window.masks)
        logits.append(values)  # (B, T, V)
    assert state is not None
    return {"logits": np.concatenate(logits, axis=1), **_named_state(state)}


def _state_or_zero(model: Model, inputs: Inputs) -> list:
    """The state before the first window, as the model makes it if none is given."""
    return model.zero_state(len(inputs.double_window.tokens)) if inputs.state is None else inputs.state


def _named_state(state: list[NDArray]) -> Tensors:
    return {f"state.{layer}": s for layer, s in enumerate(state)}


def _state_from_device(model: Model, state: list) -> Tensors:
    return _named_state([model.to_numpy(s) for s in state])
