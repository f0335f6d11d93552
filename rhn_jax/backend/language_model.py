"""The jax backend and its language models, behind `rhn.backend.Backend` and `rhn.backend.Model`."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import flax
import jax
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh
from numpy.typing import ArrayLike, NDArray

from rhn.backend import State, check_precision
from rhn.port_tools import Regularization, StepsInFlight, Window, check_window, choose_device, rows_per_chunk
from rhn.processes import ALONE, Processes
from rhn.spec.arguments import check_choice
from rhn.spec.config import RHNConfig
from rhn.spec.layers import LayerConfig
from rhn.spec.masks import VariationalMasks
from rhn.spec.optimizers import PAPER_SGD, Optimizer, OptimizerState
from rhn.spec.parameters import parameter_count
from rhn_jax.backend import programs
from rhn_jax.backend.layer import JaxLayer
from rhn_jax.backend.processes import JaxProcesses, join_processes, lost_processes
from rhn_jax.backend.quick_compilation import compile_quickly
from rhn_jax.model import RHNLanguageModel
from rhn_jax.precision import Precision
from rhn_jax.update import Memory, Rates, Update

# JAX would take three quarters of a GPU's memory at its first use, and leave too little to the other ports on the same
# card. It reads this when it first looks for devices, which importing it does not do.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

_DTYPES = ("float32", "float64")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's `mallopt`
_KEPT = 2**30  # bytes


class JaxModel:
    """See `rhn.backend.Model`."""

    _params: nnx.State
    _memory: Memory

    def __init__(
        self,
        config: RHNConfig,
        parameters: Mapping[str, NDArray],
        dtype: str,
        device: jax.Device,
        optimizer: Optimizer,
        precision: Precision,
        recompute: bool,
        processes: JaxProcesses | None = None,
    ) -> None:
        self.config = config
        self.parameter_count = parameter_count(config)
        self._dtype = np.dtype(dtype)
        self._device = device if processes is None else processes.everywhere
        self._processes = processes
        self._update = Update(optimizer)
        self._precision = precision
        self._in_flight = StepsInFlight(wait=jax.block_until_ready)
        # Shapes only: nothing is drawn that would be overwritten.
        recurrence = "recompute" if recompute else "fast"
        module = nnx.eval_shape(
            lambda: RHNLanguageModel(config, recurrence=recurrence, param_dtype=dtype, rngs=nnx.Rngs(0))
        )
        self._graph, self._shapes = nnx.split(module)
        self.load_parameters(parameters)
        self.load_optimizer_state({})
        self.last_grad_norm: Any = self._to_device(np.zeros((), self._dtype))

    def forward(
        self, tokens: ArrayLike, state: State | None = None, masks: VariationalMasks | None = None
    ) -> tuple[NDArray, list[NDArray]]:
        logits, new_state = self._run(programs.forward, self._params, self._window(tokens, None, state, masks))
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
        window = self._training_window(tokens, targets, state, masks, length)
        regularization = self._regularization(activation_regularization, temporal_activation_regularization)
        loss, new_state, gradients = self._run(programs.gradients, self._params, window, regularization, self._mesh)
        # In NumPy, because only checks ask for these gradients: it saves them the compilation of a program.
        with_decay = programs.with_decay(self._to_spec(gradients), self.parameters(), self._dtype.type(weight_decay))
        return float(loss), with_decay, [self.to_numpy(s) for s in new_state]

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
        window = self._training_window(tokens, targets, state, masks, length)
        regularization = self._regularization(activation_regularization, temporal_activation_regularization)
        # As arrays, not as Python numbers: then a new value needs no new program.
        rates = Rates(*(self._dtype.type(rate) for rate in (learning_rate, weight_decay, max_grad_norm)))
        loss, new_state, gradients = self._run(programs.gradients, self._params, window, regularization, self._mesh)
        with self._together:
            self._params, self._memory, self.last_grad_norm = programs.apply_gradients(
                self._update, self._params, self._memory, gradients, rates
            )
            self._in_flight.add(loss)
        return loss, new_state

    def evaluate_step(
        self, tokens: ArrayLike, targets: ArrayLike, state: State, masks: VariationalMasks | None = None
    ) -> tuple[Any, list[Any]]:
        log_likelihoods, new_state = self.log_likelihoods(tokens, targets, state, masks)
        return programs.negative_sum(log_likelihoods), new_state

    def log_likelihoods(
        self, tokens: ArrayLike, targets: ArrayLike, state: State, masks: VariationalMasks | None = None
    ) -> tuple[Any, list[Any]]:
        window = self._window(tokens, targets, state, masks)
        chunk = rows_per_chunk(window.tokens.size, self.config.vocab_size)
        if chunk < window.tokens.size:
            return self._run(programs.log_likelihoods_in_chunks, self._params, window, chunk)
        logits, new_state = self._run(programs.forward, self._params, window._replace(targets=None))
        return programs.log_likelihoods(logits, window.targets), new_state

    def parameters(self) -> dict[str, NDArray]:
        return self._to_spec(self._params)

    def load_parameters(self, parameters: Mapping[str, NDArray]) -> None:
        self._params = self._from_spec(parameters)

    def optimizer_state(self) -> OptimizerState:
        return self._update.state(self._memory, self._to_spec)

    def load_optimizer_state(self, state: OptimizerState) -> None:
        self._memory = self._to_device(self._update.memory(self._params, state, self._from_spec))

    def zero_state(self, batch_size: int) -> list[Any]:
        shape = (batch_size, self.config.hidden_size)
        return [self._to_device(np.zeros(shape, self._dtype)) for _ in range(self.config.num_layers)]

    def to_numpy(self, array: Any) -> NDArray:
        if self._processes is None:
            return np.array(array, order="C")
        with self._together:
            return self._processes.own_rows(array)

    @property
    def _mesh(self) -> Mesh | None:
        return None if self._processes is None else self._processes.mesh

    @property
    def _together(self) -> AbstractContextManager[None]:
        """Within it, an error of the devices is a ProcessLostError, if there are several processes."""
        several = self._processes is not None and self._processes.count > 1
        return lost_processes() if several else nullcontext()

    def _run(self, compiled: Callable[..., Any], *arguments: Any) -> Any:
        """The result of a compiled function, in the model's precision: there is one program for each precision."""
        with self._precision.products(), self._together:
            return compiled(self._graph, *arguments)

    def _window(
        self,
        tokens: ArrayLike,
        targets: ArrayLike | None,
        state: State | None,
        masks: VariationalMasks | None,
        length: int | None = None,
    ) -> Window:
        """The arguments, checked, in the dtypes that the compiled functions are for.

        They are copied: JAX may still read the caller's NumPy arrays after the call has returned.
        """
        tokens, targets = check_window(self.config, tokens, targets, state, masks, length)
        return Window(
            tokens.astype(np.int32),
            None if targets is None else targets.astype(np.int32),
            self.zero_state(len(tokens)) if state is None else self._own_state(state),
            None if masks is None else masks.map(lambda mask: np.array(mask, self._dtype)),
            None if length is None else np.int32(length),
        )

    def _regularization(self, *coefficients: float) -> Regularization:
        return Regularization(*(self._dtype.type(c) if c else None for c in coefficients))

    def _training_window(
        self,
        tokens: ArrayLike,
        targets: ArrayLike | None,
        state: State | None,
        masks: VariationalMasks | None,
        length: int | None,
    ) -> Window:
        """As `_window`; with several processes, the window of the whole batch."""
        if self._processes is None:
            return self._window(tokens, targets, state, masks, length)
        tokens, targets = check_window(self.config, tokens, targets, None, masks)
        shape = (len(tokens), self.config.hidden_size)
        state = [np.zeros(shape)] * self.config.num_layers if state is None else state
        is_of_step = [isinstance(s, Array) and s.shape != shape for s in state]
        return self._processes.cut(
            Window(
                tokens.astype(np.int32),
                None if targets is None else targets.astype(np.int32),
                [s if kept else np.array(s, self._dtype) for s, kept in zip(state, is_of_step, strict=True)],
                None if masks is None else masks.map(lambda mask: np.array(mask, self._dtype)),
                None if length is None else np.int32(length),
            )
        )

    def _own_state(self, state: State) -> list[Array]:
        # On the model's own device for the first window too; otherwise the step would be compiled twice.
        return [self._to_device(s if isinstance(s, Array) else np.array(s, self._dtype)) for s in state]

    def _to_spec(self, params: nnx.State) -> dict[str, NDArray]:
        """Copies of the parameters, or of anything with the same structure, by the specification's names."""
        with self._together:
            return nnx.merge(self._graph, params).export_parameters()

    def _from_spec(self, tensors: Mapping[str, NDArray]) -> nnx.State:
        module = nnx.merge(self._graph, self._shapes)
        module.load_parameters(tensors)
        return self._to_device(nnx.state(module))

    def _to_device(self, tree: Any) -> Any:
        return jax.device_put(tree, self._device)


class JaxBackend:
    """See `rhn.backend.Backend`."""

    name = "jax"

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
    ) -> JaxModel:
        _check_dtype(dtype)
        check_precision(precision, dtype)
        keep_freed_memory()
        several = processes if isinstance(processes, JaxProcesses) else None
        found = find_device(device)
        return JaxModel(config, parameters, dtype, found, optimizer, Precision(precision), recompute, several)

    def join_processes(self, device: str | None) -> Processes:
        return join_processes(device)

    def build_layer(
        self, config: LayerConfig, parameters: Mapping[str, NDArray], dtype: str = "float32", device: str | None = None
    ) -> JaxLayer:
        _check_dtype(dtype)
        return JaxLayer(config, parameters, dtype, find_device(device))

    def compile_quickly(self) -> None:
        compile_quickly()

    def describe(self) -> dict[str, str]:
        return {
            "jax": jax.__version__,
            "flax": flax.__version__,
            "optax": optax.__version__,
            "device": find_device(None).device_kind,
        }


def _check_dtype(dtype: str) -> None:
    """Raise ValueError unless there is such a dtype; make JAX ready for it."""
    check_choice("dtype", dtype, _DTYPES)
    if dtype == "float64":
        # For the whole process: within `with jax.enable_x64()` alone, a caller's arithmetic on the float64 losses
        # and states that a model returns would fall back to float32.
        jax.config.update("jax_enable_x64", True)


def find_device(device: str | None) -> jax.Device:
    """The device called "cpu" or "gpu"; None is JAX's own choice, and so is the first of "all".

    Raises:
        ValueError: there is no such device.
    """
    available = list(dict.fromkeys(["cpu", *(d.platform for d in jax.devices())]))  # JAX's own choice is the last
    return jax.local_devices(backend=choose_device(None if device == "all" else device, available))[0]


def keep_freed_memory() -> None:
    """Have the C library keep up to 1 GiB of what is freed, for the whole process.

    At each call, XLA takes the memory of a compiled program from the C library, and frees it at the end. glibc returns
    blocks of this size to the system, which clears every page of the next ones: in a training step at H 200 and V
    10,000, a sixth of the time.

    Nothing changes with another C library, or if the user has made a choice: a variable MALLOC_* or GLIBC_TUNABLES.
    """
    if not sys.platform.startswith("linux") or any(n.startswith(("MALLOC_", "GLIBC_TUNABLES")) for n in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # One arena, because the others are too small for such blocks. XLA starts its threads later.
        for parameter, value in ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _KEPT), (_M_TRIM_THRESHOLD, _KEPT)):
            mallopt(parameter, value)
