"""The tf backend and its language models, behind `rhn.backend.Backend` and `rhn.backend.Model`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from rhn.backend import State, check_precision
from rhn.port_tools import Regularization, Window, check_window, choose_device, rows_per_chunk
from rhn.processes import ALONE, Processes
from rhn.spec.arguments import check_choice
from rhn.spec.config import RHNConfig
from rhn.spec.layers import LayerConfig
from rhn.spec.masks import VariationalMasks
from rhn.spec.optimizers import PAPER_SGD, Optimizer, OptimizerState
from rhn.spec.parameters import parameter_count
from rhn_tf.backend.layer import TensorFlowLayer
from rhn_tf.backend.processes import TensorFlowProcesses, join_processes, lost_processes
from rhn_tf.backend.quick_compilation import compile_quickly
from rhn_tf.loss import log_likelihoods
from rhn_tf.model import RHNLanguageModel
from rhn_tf.precision import Precision
from rhn_tf.update import Update
from rhn_tf.weights import mask_tensors, to_spec

_DTYPES = ("float32", "float64")

# No Python statement of this port depends on a tensor's value. AutoGraph would rewrite every function to look for one,
# which delays the first result.
_graph = partial(tf.function, autograph=False)


class TensorFlowModel:
    """See `rhn.backend.Model`. `module` is the `RHNLanguageModel` underneath."""

    def __init__(
        self,
        config: RHNConfig,
        parameters: Mapping[str, NDArray],
        dtype: str,
        device: str,
        optimizer: Optimizer,
        precision: Precision,
        recompute: bool,
        processes: TensorFlowProcesses | None = None,
    ) -> None:
        self.config = config
        self.parameter_count = parameter_count(config)
        self._dtype = dtype
        self._device = device
        self._optimizer = optimizer
        self._precision = precision
        self._processes = processes
        with tf.device(device):
            self.module = RHNLanguageModel(
                config,
                recurrence="recompute" if recompute else "fast",
                matmul_dtype=precision.matmul_dtype,
                dtype=dtype,
            )
            self.module.build((None, None))
            self.last_grad_norm: Any = tf.zeros((), dtype)
        # XLA compiles each of these once per shape of the window and kind of masks. It would compile it again
        # for calls from Python, so all calls come from the graphs below.
        self._compiled_forward = _graph(self._forward, jit_compile=True)
        self._compiled_gradients = _graph(self._gradients, jit_compile=True)
        # The graphs are traced for the first shape, and then once more for all others.
        self._call_forward = _graph(lambda *window: self._compiled_forward(*window), reduce_retracing=True)
        self._call_gradients = _graph(self._gradients_of_all, reduce_retracing=True)
        self._call_log_likelihoods = _graph(self._log_likelihoods, reduce_retracing=True)
        self._call_top = _graph(self._masked_top, jit_compile=True, reduce_retracing=True)
        self._call_scores = _graph(self._scores, jit_compile=True, reduce_retracing=True)
        self.load_parameters(parameters)
        self.load_optimizer_state({})

    def forward(
        self, tokens: ArrayLike, state: State | None = None, masks: VariationalMasks | None = None
    ) -> tuple[NDArray, list[NDArray]]:
        with self._in_place():
            window = self._window(tokens, None, state, masks)
            logits, new_state = self._call_forward(window.tokens, window.state, window.masks)
        return self.to_numpy(logits), [self.to_numpy(s) for s in new_state]

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
        with self._in_place():
            loss, gradients, new_state = self._call_gradients(
                self._window(tokens, targets, state, masks, length),
                self._scalar(weight_decay),
                self._regularization(activation_regularization, temporal_activation_regularization),
            )
        return float(loss), to_spec(self.config, gradients), [self.to_numpy(s) for s in new_state]

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
        rates = (learning_rate, weight_decay, max_grad_norm)
        with self._in_place():
            loss, new_state, self.last_grad_norm = self._call_train_step(
                self._window(tokens, targets, state, masks, length),
                *map(self._scalar, rates),
                self._regularization(activation_regularization, temporal_activation_regularization),
            )
        return loss, new_state

    def evaluate_step(
        self, tokens: ArrayLike, targets: ArrayLike, state: State, masks: VariationalMasks | None = None
    ) -> tuple[Any, list[Any]]:
        log_likelihoods, new_state = self.log_likelihoods(tokens, targets, state, masks)
        return -tf.reduce_sum(log_likelihoods), new_state

    def log_likelihoods(
        self, tokens: ArrayLike, targets: ArrayLike, state: State, masks: VariationalMasks | None = None
    ) -> tuple[Any, list[Any]]:
        with self._in_place():
            window = self._window(tokens, targets, state, masks)
            chunk = rows_per_chunk(np.size(tokens), self.config.vocab_size)
            if chunk < np.size(tokens):
                return self._log_likelihoods_in_chunks(window, chunk)
            return self._call_log_likelihoods(*window[:4])

    def parameters(self) -> dict[str, NDArray]:
        return self.module.export_parameters()

    def load_parameters(self, parameters: Mapping[str, NDArray]) -> None:
        self.module.load_parameters(parameters)

    def optimizer_state(self) -> OptimizerState:
        return self._update.state()

    def load_optimizer_state(self, state: OptimizerState) -> None:
        with tf.device(self._device):
            self._update = Update(self._optimizer, self.config, self._parameters(), state)
        # The update itself is not compiled by XLA; see `Update`.
        self._call_train_step = _graph(self._train_step, reduce_retracing=True)

    def zero_state(self, batch_size: int) -> list[Any]:
        with tf.device(self._device):
            return [tf.zeros((batch_size, self.config.hidden_size), self._dtype) for _ in range(self.config.num_layers)]

    def to_numpy(self, array: Any) -> NDArray:
        return np.array(array)

    # Tensors in, tensors out. Scalars are tensors too, so that another rate needs no new program.

    def _forward(
        self, tokens: tf.Tensor, state: list[tf.Tensor], masks: VariationalMasks
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        logits, *new_state = self.module(tokens, state=state, masks=masks)
        return logits, new_state

    def _log_likelihoods(
        self, tokens: tf.Tensor, targets: tf.Tensor, state: list[tf.Tensor], masks: VariationalMasks
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """(B, T) in nats; and the state after the window."""
        logits, new_state = self._compiled_forward(tokens, state, masks)  # (B, T, V)
        return log_likelihoods(logits, targets), new_state

    def _log_likelihoods_in_chunks(self, window: Window, chunk: int) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """As `_log_likelihoods`, with the logits of no more than `chunk` rows at once."""
        top, new_state = self._call_top(window.tokens, window.state, window.masks)  # (B, T, H)
        rows, targets = tf.reshape(top, (-1, top.shape[-1])), tf.reshape(window.targets, (-1,))
        starts = range(0, len(targets), chunk)
        scores = [self._call_scores(rows[i : i + chunk], targets[i : i + chunk]) for i in starts]  # (chunk,) each
        return tf.reshape(tf.concat(scores, axis=0), window.targets.shape), new_state

    def _masked_top(self, *window: Any) -> tuple[tf.Tensor, list[tf.Tensor]]:
        top = self.module.top(*window)
        return top.masked, top.state

    def _scores(self, top: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Log-likelihoods (rows,) in nats, from the inputs of the softmax layer (rows, H)."""
        return log_likelihoods(self.module.logits(top[tf.newaxis])[0], targets)

    def _gradients(
        self, window: Window, weight_decay: tf.Tensor | None, regularization: Regularization
    ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """Loss, gradients in the order of `module.parameters`, and the state after the window.

        With several processes, these are the parts that the rows of this process add to the means over all rows.
        """
        parameters = self._parameters()
        with tf.GradientTape() as tape:
            loss, differentiated, new_state = self.module.training_loss(window, regularization)
            if self._processes is not None:
                loss, differentiated = loss / self._processes.count, differentiated / self._processes.count
        gradients = tape.gradient(differentiated, parameters)
        return loss, self._with_decay(gradients, weight_decay), new_state

    def _gradients_of_all(
        self, window: Window, weight_decay: tf.Tensor, regularization: Regularization
    ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """As `_gradients`, for the rows of all processes."""
        if self._processes is None:
            return self._compiled_gradients(window, weight_decay, regularization)
        loss, gradients, new_state = self._compiled_gradients(window, None, regularization)
        # The gradient of an untied embedding is a list of its rows that were read, other rows in each process.
        dense = [tf.reshape(g, p.shape) for g, p in zip(gradients, self._parameters(), strict=True)]
        loss, *gradients = self._processes.sum([loss, *dense])
        return loss, self._with_decay(gradients, weight_decay), new_state

    def _with_decay(self, gradients: list[tf.Tensor], weight_decay: tf.Tensor | None) -> list[tf.Tensor]:
        if weight_decay is None:
            return gradients
        return [g + weight_decay * p for g, p in zip(gradients, self._parameters(), strict=True)]

    def _train_step(
        self,
        window: Window,
        learning_rate: tf.Tensor,
        weight_decay: tf.Tensor,
        max_grad_norm: tf.Tensor,
        regularization: Regularization,
    ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor]:
        """Loss, the state after the window, and the norm of the gradients."""
        in_loss = tf.zeros_like(weight_decay) if self._optimizer.decoupled_weight_decay else weight_decay
        loss, gradients, new_state = self._gradients_of_all(window, in_loss, regularization)
        norm = self._update(gradients, learning_rate, weight_decay, max_grad_norm)
        return loss, new_state, norm

    def _parameters(self) -> list[tf.Variable]:
        return [variable.value for variable in self.module.parameters]

    # From the caller's arrays to tensors on the device.

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """On the model's device, in its precision; ProcessLostError if another process has ended."""
        with tf.device(self._device), self._precision.products(), lost_processes():
            yield

    def _window(
        self,
        tokens: ArrayLike,
        targets: ArrayLike | None,
        state: State | None,
        masks: VariationalMasks | None,
        length: int | None = None,
    ) -> Window:
        if state is not None:
            state = [s if tf.is_tensor(s) else tf.constant(np.asarray(s, self._dtype)) for s in state]
        tokens, targets = check_window(self.config, tokens, targets, state, masks, length)
        return Window(
            tf.constant(tokens, tf.int32),
            None if targets is None else tf.constant(targets, tf.int32),
            self.zero_state(len(tokens)) if state is None else state,
            mask_tensors(masks, self._dtype),
            None if length is None else tf.constant(length, tf.int32),
        )

    def _scalar(self, value: float) -> tf.Tensor:
        return tf.constant(value, self._dtype)

    def _regularization(self, *coefficients: float) -> Regularization:
        return Regularization(*(self._scalar(c) if c else None for c in coefficients))


class TensorFlowBackend:
    """See `rhn.backend.Backend`."""

    name = "tf"

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
    ) -> TensorFlowModel:
        check_choice("dtype", dtype, _DTYPES)
        check_precision(precision, dtype)
        let_gpu_memory_grow()
        device = find_device(device)
        several = processes if isinstance(processes, TensorFlowProcesses) else None
        found = Precision.on_device(precision, device)
        return TensorFlowModel(config, parameters, dtype, device, optimizer, found, recompute, several)

    def join_processes(self, device: str | None) -> Processes:
        return join_processes(device)

    def build_layer(
        self, config: LayerConfig, parameters: Mapping[str, NDArray], dtype: str = "float32", device: str | None = None
    ) -> TensorFlowLayer:
        check_choice("dtype", dtype, _DTYPES)
        let_gpu_memory_grow()
        return TensorFlowLayer(config, parameters, dtype, find_device(device))

    def compile_quickly(self) -> None:
        compile_quickly()

    def describe(self) -> dict[str, str]:
        let_gpu_memory_grow()
        gpus = tf.config.list_physical_devices("GPU")
        name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "gpu") if gpus else "cpu"
        return {"tensorflow": tf.__version__, "keras": keras.__version__, "device": name}


def find_device(device: str | None) -> str:
    """TensorFlow's name of "cpu" or "gpu"; None is the first GPU, or the CPU where there is none.

    Raises:
        ValueError: there is no such device.
    """
    available = ["cpu", *(["gpu"] if tf.config.list_physical_devices("GPU") else [])]
    return f"/device:{choose_device(device, available).upper()}:0"


def let_gpu_memory_grow() -> None:
    """Take GPU memory as it is needed, so that others can share the card; the user's own choice stands."""
    if "TF_FORCE_GPU_ALLOW_GROWTH" in os.environ:
        return
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except (RuntimeError, ValueError):  # the GPU is in use already, or the user has set a limit instead
            return
