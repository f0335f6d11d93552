"""The protocols that a backend and its models implement, and how a backend is found by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, runtime_checkable

from numpy.typing import ArrayLike, NDArray

from rhn.processes import ALONE, Processes
from rhn.spec.arguments import check_choice
from rhn.spec.config import RHNConfig
from rhn.spec.layers import LayerConfig
from rhn.spec.masks import VariationalMasks
from rhn.spec.optimizers import PAPER_SGD, Optimizer, OptimizerState

ENTRY_POINT_GROUP = "rhn.backends"
PRECISIONS = ("float32", "tf32", "bf16")

# A state is a list of arrays (B, H), one per layer. Methods accept NumPy arrays and the model's own arrays.
State = Sequence[Any]


@runtime_checkable
class Model(Protocol):
    """A language model with parameters, made by `Backend.build`.

    Tokens and targets are NumPy integers (B, T); masks are `rhn.VariationalMasks` of NumPy arrays. Bad input raises a
    ValueError with a one-sentence message.
    """

    config: RHNConfig
    parameter_count: int
    last_grad_norm: Any  # global norm before clipping in the last train_step, on the device

    def forward(
        self, tokens: ArrayLike, state: State | None = None, masks: VariationalMasks | None = None
    ) -> tuple[NDArray, list[NDArray]]:
        """Logits (B, T, V) and the state after the window, as NumPy arrays. `state=None` is a zero state."""
        ...

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
        """Loss, gradients and the state after the window, as NumPy arrays.

        The loss is summed over time, averaged over the batch and without weight decay; the gradients include weight
        decay. A model need not have the keyword arguments: they are passed only if they are used.

        Args:
            tokens, targets: (B, T).
            state: the state before the window.
            masks: the masks of the window.
            weight_decay: see SPEC.md 5.2.
            activation_regularization, temporal_activation_regularization: also in the gradients only; SPEC.md 5.11.
            length: number of time steps before the padding; SPEC.md 3.5.
        """
        ...

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
        """One training step, in place. Keyword arguments and loss are those of `gradients`; all stays on the device."""
        ...

    def evaluate_step(
        self, tokens: ArrayLike, targets: ArrayLike, state: State, masks: VariationalMasks | None = None
    ) -> tuple[Any, list[Any]]:
        """Negative log-likelihood in nats, summed over the window and the batch, and the state; both on the device."""
        ...

    def log_likelihoods(
        self, tokens: ArrayLike, targets: ArrayLike, state: State, masks: VariationalMasks | None = None
    ) -> tuple[Any, list[Any]]:
        """Log-likelihood (B, T) of every target in nats, and the state; both on the device."""
        ...

    def parameters(self) -> dict[str, NDArray]:
        """All tensors by the names of `rhn.spec.parameters`, as NumPy copies."""
        ...

    def load_parameters(self, parameters: Mapping[str, NDArray]) -> None:
        """Replace all tensors by copies of `parameters`."""
        ...

    def optimizer_state(self) -> OptimizerState:
        """The state of the optimiser, as NumPy copies; see `rhn.spec.optimizers`."""
        ...

    def load_optimizer_state(self, state: OptimizerState) -> None:
        """Replace the state of the optimiser. If it holds "averaged_steps", averaging is on from here on."""
        ...

    def zero_state(self, batch_size: int) -> list[Any]:
        """The state before the first token, on the device."""
        ...

    def to_numpy(self, array: Any) -> NDArray:
        """A loss or state of this model as a NumPy array; waits for the device."""
        ...


@runtime_checkable
class Backend(Protocol):
    """Builds models in one framework. An entry point of the group `rhn.backends` names such a class."""

    name: str

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
    ) -> Model:
        """A model with a copy of `parameters`.

        Args:
            config: the architecture.
            parameters: from `rhn.initial_parameters` or from a checkpoint.
            dtype: "float32" or "float64": the dtype of parameters, states and results.
            device: "cpu", "gpu", or None for the framework's own choice.
            optimizer: the update rule of `train_step`.
            precision: one of `PRECISIONS`, to which the factors of matrix products may be rounded; everything else has
                the dtype `dtype`. It is a permission: a device that would not be faster computes in float32.
            recompute: permission to save memory by computing parts of the forward pass again in the backward pass.
            processes: the processes that train the model together. Each process passes its rows of the window, the
                state and the masks to `gradients` and `train_step`, and gets the loss and the gradients of the whole
                batch. Only a `ParallelBackend` is asked for more than one process.

        Raises:
            ValueError: parameters do not fit, or dtype, device or precision is not available.
        """
        ...

    def describe(self) -> dict[str, str]:
        """Versions of the framework's packages, for records; and as "device" the device that `build` would choose:
        "cpu" or the name of another one."""
        ...


class Layer(Protocol):
    """RHN layers without embedding and softmax, made by `LayerBackend.build_layer`; SPEC.md section 7."""

    config: LayerConfig

    def forward(
        self,
        x: ArrayLike,
        state: State | None = None,
        lengths: ArrayLike | None = None,
        masks: VariationalMasks | None = None,
    ) -> tuple[NDArray, list[NDArray]]:
        """Outputs (B, T, D*H), zero after the end of a sequence, and the last state (B, H) of every cell; NumPy arrays.

        `x` is (B, T, E), `lengths` is (B,) or None. There is one state and one mask per layer and direction.
        """
        ...

    def gradients(
        self,
        x: ArrayLike,
        d_outputs: ArrayLike,
        d_state: Sequence[ArrayLike],
        state: State | None = None,
        lengths: ArrayLike | None = None,
        masks: VariationalMasks | None = None,
    ) -> tuple[dict[str, NDArray], NDArray, list[NDArray]]:
        """Derivatives of `sum(outputs * d_outputs) + sum(last states * d_state)` with respect to the parameters (by
        name), to x, and to the states before the first time step, as NumPy arrays."""
        ...

    def parameters(self) -> dict[str, NDArray]:
        """All tensors by the names of `rhn.spec.layers`, as NumPy copies."""
        ...


@runtime_checkable
class LayerBackend(Protocol):
    """An optional ability of a backend: build layers without the language model, by the constructors for users."""

    def build_layer(
        self, config: LayerConfig, parameters: Mapping[str, NDArray], dtype: str = "float32", device: str | None = None
    ) -> Layer:
        """Layers with a copy of `parameters`.

        Raises:
            ValueError: parameters do not fit, or dtype or device is not available.
        """
        ...


@runtime_checkable
class CompilingBackend(Protocol):
    """An optional ability of a backend that compiles: to compile in less time."""

    def compile_quickly(self) -> None:
        """From here on, compile in the least time in this process, before it has built anything.

        For runs in which most programs are used only once. The slower machine code makes the same computations in the
        same dtypes; their results may be rounded otherwise.
        """
        ...


def check_precision(precision: str, dtype: str) -> None:
    """Check that a model in `dtype` may compute products in `precision`.

    Raises:
        ValueError: there is no such precision, or it is lower than float32 in a float64 model.
    """
    check_choice("precision", precision, PRECISIONS)
    if precision != "float32" and dtype != "float32":
        raise ValueError(f"precision={precision!r} is not accepted with dtype={dtype!r}: it is for float32 only")


_EXTRAS = {"torch": "torch", "tf": "tf", "jax": "jax"}


def installed_backends() -> dict[str, EntryPoint]:
    """Entry points of all declared backends, by name. The framework of a backend may still be missing."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def load_backend(name: str) -> Backend:
    """The backend called `name`: "reference", "torch", "tf", "jax" or another one that an installed package declares.

    Raises:
        ValueError: no installed package declares such a backend.
        ImportError: its framework is not installed; the message says what to install.
    """
    known = installed_backends()
    if name not in known:
        raise ValueError(f"backend={name!r} is not known: accepted are {', '.join(sorted(known))}")
    try:
        loaded = known[name].load()
    except ModuleNotFoundError as error:
        extra = f"recurrent-highway-networks[{_EXTRAS[name]}]" if name in _EXTRAS else str(error.name)
        raise ImportError(
            f"backend {name!r} needs {error.name}, which is not installed: pip install '{extra}'"
        ) from error
    return loaded() if isinstance(loaded, type) else loaded
