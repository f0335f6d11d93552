"""What a backend is, and how one is found by name."""

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

# A state is a list of (B, H), one per layer; on the way into a method NumPy arrays and the model's own are accepted.
State = Sequence[Any]


@runtime_checkable
class Model(Protocol):
    """A language model with parameters, as `Backend.build` makes it.

    Tokens and targets are (B, T) NumPy integers, masks `rhn.VariationalMasks` of NumPy arrays. Bad input raises a
    ValueError of one sentence.
    """

    config: RHNConfig
    parameter_count: int
    last_grad_norm: Any  # global norm before clipping in the last train_step, on the device

    def forward(
        self, tokens: ArrayLike, state: State | None = None, masks: VariationalMasks | None = None
    ) -> tuple[NDArray, list[NDArray]]:
        """Logits (B, T, V) and the state after the window, both NumPy. `state=None` is zero."""
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
        """Loss (summed over time, mean over batch, without weight decay), gradients with it, state; all NumPy.

        A model need not take the arguments by name; they are given only where they are used.

        Args:
            tokens, targets: (B, T).
            state: before the window.
            masks: of the window.
            weight_decay: see SPEC.md 5.2.
            activation_regularization, temporal_activation_regularization: likewise in the gradients only; SPEC.md 5.11.
            length: only so many time steps are there, and the others are padding; SPEC.md 3.5.
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
        """One step of the optimiser in place; arguments by name and loss as in `gradients`; all stays on the device."""
        ...

    def evaluate_step(
        self, tokens: ArrayLike, targets: ArrayLike, state: State, masks: VariationalMasks | None = None
    ) -> tuple[Any, list[Any]]:
        """Negative log-likelihood in nats summed over the window and the batch, and the state, on the device."""
        ...

    def log_likelihoods(
        self, tokens: ArrayLike, targets: ArrayLike, state: State, masks: VariationalMasks | None = None
    ) -> tuple[Any, list[Any]]:
        """Log-likelihood (B, T) of every target in nats, and the state, on the device."""
        ...

    def parameters(self) -> dict[str, NDArray]:
        """All tensors by the names of `rhn.spec.parameters`, as NumPy copies."""
        ...

    def load_parameters(self, parameters: Mapping[str, NDArray]) -> None:
        """Replace all tensors by copies of `parameters`."""
        ...

    def optimizer_state(self) -> OptimizerState:
        """What the optimiser remembers, as NumPy copies; see `rhn.spec.optimizers`."""
        ...

    def load_optimizer_state(self, state: OptimizerState) -> None:
        """Replace what the optimiser remembers; with "averaged_steps" in it, averaging is on from here on."""
        ...

    def zero_state(self, batch_size: int) -> list[Any]:
        """The state before the first token, on the device."""
        ...

    def to_numpy(self, array: Any) -> NDArray:
        """A loss or state of this model as a NumPy array; waits for the device."""
        ...


@runtime_checkable
class Backend(Protocol):
    """Makes models in one framework. An entry point of the group `rhn.backends` names such a class."""

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
            parameters: as `rhn.initial_parameters` or a checkpoint gives them.
            dtype: "float32" or "float64", of parameters, states and results.
            device: "cpu", "gpu", or None for the framework's own choice.
            optimizer: what `train_step` does with the gradients.
            precision: one of `PRECISIONS`, to which the factors of matrix products may be rounded; everything else is
                of `dtype`. A permission: a device that is no faster for it computes in float32.
            recompute: permission to keep less of the forward for the backward, and compute it again there.
            processes: that train the model together: each gives `gradients` and `train_step` its rows of the window,
                the state and the masks, and all of them get the loss and the gradients of the whole batch. Only a
                `ParallelBackend` is asked for more than one.

        Raises:
            ValueError: parameters do not fit, or dtype, device or precision is not available.
        """
        ...

    def describe(self) -> dict[str, str]:
        """For records: versions of the framework's packages, and as "device" that which `build` would choose, "cpu" or
        the name of another."""
        ...


class Layer(Protocol):
    """RHN layers without embedding and softmax, as `LayerBackend.build_layer` makes them; SPEC.md section 7."""

    config: LayerConfig

    def forward(
        self,
        x: ArrayLike,
        state: State | None = None,
        lengths: ArrayLike | None = None,
        masks: VariationalMasks | None = None,
    ) -> tuple[NDArray, list[NDArray]]:
        """Outputs (B, T, D*H), zero after the end of a sequence, and the last state of every cell, (B, H); NumPy.

        `x` is (B, T, E), `lengths` (B,) or None; states and masks are one per layer and direction.
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
        """Derivatives of `sum(outputs * d_outputs) + sum(last states * d_state)`: of the parameters by name, of x, of
        the states before the first time step; NumPy."""
        ...

    def parameters(self) -> dict[str, NDArray]:
        """All tensors by the names of `rhn.spec.layers`, as NumPy copies."""
        ...


@runtime_checkable
class LayerBackend(Protocol):
    """What a backend may also do: make layers on their own, through the constructors that its users call."""

    def build_layer(
        self, config: LayerConfig, parameters: Mapping[str, NDArray], dtype: str = "float32", device: str | None = None
    ) -> Layer:
        """Layers with a copy of `parameters`.

        Raises:
            ValueError: parameters do not fit, or dtype or device is not available.
        """
        ...


def check_precision(precision: str, dtype: str) -> None:
    """That products in `precision` can be asked of a model in `dtype`.

    Raises:
        ValueError: there is no such precision, or it is lower than float32 in a float64 model.
    """
    check_choice("precision", precision, PRECISIONS)
    if precision != "float32" and dtype != "float32":
        raise ValueError(f"precision={precision!r} is not accepted with dtype={dtype!r}: it is for float32 only")


_EXTRAS = {"torch": "torch", "tf": "tf", "jax": "jax"}


def installed_backends() -> dict[str, EntryPoint]:
    """Entry points of every declared backend, by name; that its framework is installed is not implied."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def load_backend(name: str) -> Backend:
    """The backend called `name`: "reference", "torch", "tf", "jax" or any that an installed package declares.

    Raises:
        ValueError: nobody declares such a backend.
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
