"""The reference as a backend: slow, and computed in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rhn.backend import State, check_precision
from rhn.processes import ALONE, Processes
from rhn.spec import reference
from rhn.spec.arguments import check_choice, refusal
from rhn.spec.config import RHNConfig
from rhn.spec.layers import (
    LayerConfig,
    check_layer_parameters,
    layer_parameter_shapes,
    layers_forward,
    layers_gradients,
)
from rhn.spec.masks import VariationalMasks
from rhn.spec.optimizers import PAPER_SGD, Optimizer, OptimizerState
from rhn.spec.parameters import Parameters, check_parameters, parameter_count, parameter_shapes


class ReferenceModel:
    """See `rhn.backend.Model`. Computes in float64 whatever `dtype` says and rounds only what it returns."""

    def __init__(
        self,
        config: RHNConfig,
        parameters: Mapping[str, NDArray],
        dtype: str,
        optimizer: Optimizer,
        processes: Processes = ALONE,
    ) -> None:
        self.config = config
        self.parameter_count = parameter_count(config)
        self.last_grad_norm = 0.0
        self._dtype = np.dtype(dtype)
        self._optimizer = optimizer
        self._shares = processes.shares
        self._parameters: Parameters = {}
        self._optimizer_state: OptimizerState = {}
        self.load_parameters(parameters)

    def forward(
        self, tokens: ArrayLike, state: State | None = None, masks: VariationalMasks | None = None
    ) -> tuple[NDArray, list[NDArray]]:
        logits, new_state = reference.forward(self.config, self._parameters, tokens, state, masks)
        return logits.astype(self._dtype), self._round(new_state)

    def gradients(
        self,
        tokens: ArrayLike,
        targets: ArrayLike,
        state: State | None = None,
        masks: VariationalMasks | None = None,
        weight_decay: float = 0.0,
        *,
        activation_regularization: float = 0.0,
        temporal_activation_regularization: float = 0.0,
        length: int | None = None,
    ) -> tuple[float, dict[str, NDArray], list[NDArray]]:
        regularization = activation_regularization, temporal_activation_regularization
        loss, grads, new_state = reference.gradients(
            self.config, self._parameters, tokens, targets, state, masks, weight_decay, *regularization, length
        )
        return loss, {name: g.astype(self._dtype) for name, g in grads.items()}, self._round(new_state)

    def train_step(
        self,
        tokens: ArrayLike,
        targets: ArrayLike,
        state: State,
        masks: VariationalMasks | None,
        learning_rate: float,
        weight_decay: float,
        max_grad_norm: float,
        *,
        activation_regularization: float = 0.0,
        temporal_activation_regularization: float = 0.0,
        length: int | None = None,
    ) -> tuple[Any, list[Any]]:
        in_loss = 0.0 if self._optimizer.decoupled_weight_decay else weight_decay
        window = tokens, targets, state, masks
        numbers = in_loss, activation_regularization, temporal_activation_regularization, length
        if self._shares == 1:
            loss, grads, new_state = reference.gradients(self.config, self._parameters, *window, *numbers)
        else:
            loss, grads, new_state = reference.gradients_of_processes(
                self._shares, self.config, self._parameters, *window, *numbers
            )
        self.last_grad_norm = reference.global_norm(grads)
        parameters, self._optimizer_state = reference.update(
            self._optimizer,
            self._parameters,
            grads,
            self._optimizer_state,
            learning_rate,
            weight_decay,
            max_grad_norm,
        )
        if self._dtype == np.float32:  # so that a run continues from its checkpoint as if it had not been stopped
            parameters = {name: value.astype(np.float32).astype(np.float64) for name, value in parameters.items()}
        self._parameters = parameters
        return loss, new_state

    def evaluate_step(
        self, tokens: ArrayLike, targets: ArrayLike, state: State, masks: VariationalMasks | None = None
    ) -> tuple[Any, list[Any]]:
        logits, new_state = reference.forward(self.config, self._parameters, tokens, state, masks)
        return reference.cross_entropy(logits, targets).sum(), new_state

    def log_likelihoods(
        self, tokens: ArrayLike, targets: ArrayLike, state: State, masks: VariationalMasks | None = None
    ) -> tuple[Any, list[Any]]:
        scores, new_state = reference.forward(self.config, self._parameters, tokens, state, masks)
        return -reference.cross_entropy(scores, targets), new_state

    def parameters(self) -> dict[str, NDArray]:
        return {name: value.astype(self._dtype) for name, value in self._parameters.items()}

    def load_parameters(self, parameters: Mapping[str, NDArray]) -> None:
        check_parameters(self.config, parameters)
        # In the canonical order, whatever a file's is: the rounding of the gradient norm depends on it.
        self._parameters = {name: np.array(parameters[name], np.float64) for name in parameter_shapes(self.config)}

    def optimizer_state(self) -> OptimizerState:
        return {name: np.array(value) for name, value in self._optimizer_state.items()}

    def load_optimizer_state(self, state: OptimizerState) -> None:
        self._optimizer_state = {name: np.array(value) for name, value in state.items()}

    def zero_state(self, batch_size: int) -> list[Any]:
        return reference.zero_state(self.config, batch_size)

    def to_numpy(self, array: Any) -> NDArray:
        return np.asarray(array)

    def _round(self, state: list[NDArray]) -> list[NDArray]:
        return [s.astype(self._dtype) for s in state]


class ReferenceLayer:
    """See `rhn.backend.Layer`. Computes in float64 whatever `dtype` says and rounds only what it returns."""

    def __init__(self, config: LayerConfig, parameters: Mapping[str, NDArray], dtype: str) -> None:
        check_layer_parameters(config, parameters)
        self.config = config
        self._dtype = np.dtype(dtype)
        self._parameters = {name: np.array(parameters[name], np.float64) for name in layer_parameter_shapes(config)}

    def forward(
        self,
        x: ArrayLike,
        state: State | None = None,
        lengths: ArrayLike | None = None,
        masks: VariationalMasks | None = None,
    ) -> tuple[NDArray, list[NDArray]]:
        outputs, new_state = layers_forward(self.config, self._parameters, x, state, lengths, masks)
        return outputs.astype(self._dtype), [s.astype(self._dtype) for s in new_state]

    def gradients(
        self,
        x: ArrayLike,
        d_outputs: ArrayLike,
        d_state: Sequence[ArrayLike],
        state: State | None = None,
        lengths: ArrayLike | None = None,
        masks: VariationalMasks | None = None,
    ) -> tuple[dict[str, NDArray], NDArray, list[NDArray]]:
        grads = layers_gradients(self.config, self._parameters, x, d_outputs, d_state, state, lengths, masks)
        return (
            {name: g.astype(self._dtype) for name, g in grads.parameters.items()},
            grads.x.astype(self._dtype),
            [s.astype(self._dtype) for s in grads.state],
        )

    def parameters(self) -> dict[str, NDArray]:
        return {name: value.astype(self._dtype) for name, value in self._parameters.items()}


class ReferenceBackend:
    """See `rhn.backend.Backend`. If `processes` has several shares, a model computes as that many processes would."""

    name = "reference"
    emulates_processes = True

    def build(
        self,
        config: RHNConfig,
        parameters: Mapping[str, NDArray],
        dtype: str = "float32",
        device: str | None = None,
        optimizer: Optimizer = PAPER_SGD,
        precision: str = "float32",
        recompute: bool = False,
        processes: Processes = ALONE,
    ) -> ReferenceModel:
        _check_where(dtype, device)
        check_precision(precision, dtype)  # `precision` and `recompute` are permissions, which the reference never uses
        if processes.count > 1:
            raise ValueError("several processes are not accepted: the reference runs in one process")
        return ReferenceModel(config, parameters, dtype, optimizer, processes)

    def build_layer(
        self, config: LayerConfig, parameters: Mapping[str, NDArray], dtype: str = "float32", device: str | None = None
    ) -> ReferenceLayer:
        _check_where(dtype, device)
        return ReferenceLayer(config, parameters, dtype)

    def describe(self) -> dict[str, str]:
        return {"numpy": np.__version__, "device": "cpu"}


def _check_where(dtype: str, device: str | None) -> None:
    check_choice("dtype", dtype, ("float32", "float64"))
    if device not in (None, "cpu"):
        raise refusal("device", device, "cpu or None, for the reference")
