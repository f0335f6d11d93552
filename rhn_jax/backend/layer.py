"""`RHN` behind `rhn.backend.Layer`, for the conformance suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from numpy.typing import ArrayLike, NDArray

from rhn.backend import State
from rhn.spec.layers import LayerConfig
from rhn.spec.masks import VariationalMasks
from rhn_jax.layer import RHN


class JaxLayer:
    """See `rhn.backend.Layer`."""

    def __init__(self, config: LayerConfig, parameters: Mapping[str, NDArray], dtype: str, device: jax.Device) -> None:
        self.config = config
        self._dtype = np.dtype(dtype)
        self._device = device
        # Shapes only: nothing is drawn that would be overwritten.
        module = nnx.eval_shape(
            lambda: RHN(
                config.input_size,
                config.hidden_size,
                config.recurrence_depth,
                config.num_layers,
                bidirectional=config.directions == "both",
                reverse=config.directions == "reverse",
                keep_order=True,
                return_carry=True,
                couple_gates=config.couple_gates,
                share_gate_masks=config.share_gate_masks,
                activation=config.activation,
                param_dtype=dtype,
                rngs=nnx.Rngs(0),
            )
        )
        module.load_parameters(parameters)
        self._graph, params = nnx.split(module)
        self._params = jax.device_put(params, device)

    def forward(
        self,
        x: ArrayLike,
        state: State | None = None,
        lengths: ArrayLike | None = None,
        masks: VariationalMasks | None = None,
    ) -> tuple[NDArray, list[NDArray]]:
        outputs, new_state = _forward(self._graph, self._params, *self._arguments(x, state, lengths, masks))
        return np.array(outputs), [np.array(s) for s in new_state]

    def gradients(
        self,
        x: ArrayLike,
        d_outputs: ArrayLike,
        d_state: Sequence[ArrayLike],
        state: State | None = None,
        lengths: ArrayLike | None = None,
        masks: VariationalMasks | None = None,
    ) -> tuple[dict[str, NDArray], NDArray, list[NDArray]]:
        arguments = self._arguments(x, state, lengths, masks)
        given = self._to_device((d_outputs, list(d_state)))
        d_params, d_x, d_initial = _gradients(self._graph, self._params, *arguments, given)
        return self._to_spec(d_params), np.array(d_x), [np.array(s) for s in d_initial]

    def parameters(self) -> dict[str, NDArray]:
        return self._to_spec(self._params)

    def _arguments(
        self, x: ArrayLike, state: State | None, lengths: ArrayLike | None, masks: VariationalMasks | None
    ) -> tuple[Any, ...]:
        x = np.array(x, self._dtype)
        if state is None:
            state = [np.zeros((len(x), self.config.hidden_size))] * len(list(self.config.cells()))
        lengths = None if lengths is None else jax.device_put(np.array(lengths, np.int32), self._device)
        return *self._to_device((x, list(state))), lengths, self._to_device(masks)

    def _to_device(self, tree: Any) -> Any:
        return jax.tree.map(lambda a: jax.device_put(np.array(a, self._dtype), self._device), tree)

    def _to_spec(self, params: nnx.State) -> dict[str, NDArray]:
        return nnx.merge(self._graph, params).export_parameters()


@partial(jax.jit, static_argnames="graph")
def _forward(
    graph: nnx.GraphDef,
    params: nnx.State,
    x: Array,
    state: list[Array],
    lengths: Array | None,
    masks: VariationalMasks | None,
) -> tuple[Array, list[Array]]:
    """Outputs (B, T, D*H), and the last state of every cell."""
    layer = nnx.merge(graph, params)
    carry, outputs = layer(x, initial_carry=state, seq_lengths=lengths, masks=masks)
    return outputs, carry


@partial(jax.jit, static_argnames="graph")
def _gradients(
    graph: nnx.GraphDef,
    params: nnx.State,
    x: Array,
    state: list[Array],
    lengths: Array | None,
    masks: VariationalMasks | None,
    given: tuple[Array, list[Array]],
) -> tuple[nnx.State, Array, list[Array]]:
    """Derivatives with respect to parameters, x and state, from the derivatives `given` for outputs and last states."""

    def scalar(params: nnx.State, x: Array, state: list[Array]) -> Array:
        results = _forward(graph, params, x, state, lengths, masks)
        return sum(jnp.vdot(a, d) for a, d in zip(jax.tree.leaves(results), jax.tree.leaves(given), strict=True))

    return jax.grad(scalar, argnums=(0, 1, 2))(params, x, state)
