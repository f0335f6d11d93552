"""RHNLanguageModel: embedding, RHN layers, softmax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from numpy.typing import NDArray

from rhn.spec.config import RHNConfig
from rhn.spec.masks import NO_MASKS, VariationalMasks
from rhn.spec.parameters import check_parameters
from rhn_jax.cell import uniform_param
from rhn_jax.layer import RHN


class RHNLanguageModel(nnx.Module):
    """Language model of Zilly et al., arXiv 1607.03474, section 5.

    Args:
        config: the architecture.
        recurrence, init_scale, transform_bias, param_dtype, rngs: see `RHN`.

    Attributes:
        embedding: (V, E); also the softmax weight if the configuration ties them.
        rhn: the `RHN` between embedding and softmax.
        softmax_weight: (H, V), or None if tied.
        softmax_bias: (V,).
    """

    def __init__(
        self,
        config: RHNConfig,
        *,
        recurrence: str = "fast",
        init_scale: float = 0.04,
        transform_bias: float = -2.0,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.config = config
        self.embedding = uniform_param(rngs, (config.vocab_size, config.embedding_width), init_scale, param_dtype)
        self.rhn = RHN(
            config.embedding_width,
            config.hidden_size,
            config.recurrence_depth,
            config.num_layers,
            time_major=True,
            couple_gates=config.couple_gates,
            activation=config.activation,
            init_scale=init_scale,
            transform_bias=transform_bias,
            recurrence=recurrence,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.softmax_weight = (
            None
            if config.tie_weights
            else uniform_param(rngs, (config.hidden_size, config.vocab_size), init_scale, param_dtype)
        )
        self.softmax_bias = uniform_param(rngs, (config.vocab_size,), init_scale, param_dtype)

    def __call__(
        self, carry: Sequence[ArrayLike] | None, tokens: ArrayLike, masks: VariationalMasks | None = None
    ) -> tuple[list[Array], Array]:
        """State after the window, and logits (B, T, V) of the next token at every position.

        Args:
            carry: per layer (B, H) before the window; None is zero.
            tokens: (B, T) integers below V.
            masks: None drops nothing.
        """
        masks = NO_MASKS if masks is None else masks
        embedding = self.embedding[...]  # (V, E)
        x = embedding[jnp.asarray(tokens).T]  # (T, B, E)
        if masks.embedding is not None:
            x = x * jnp.asarray(masks.embedding, x.dtype).T[..., None]
        carry, top = self.rhn(carry, x, masks)  # per layer (B, H); (T, B, H)
        if masks.output is not None:
            top = top * jnp.asarray(masks.output, top.dtype)
        if self.softmax_weight is None:
            logits = jnp.tensordot(top, embedding, axes=(-1, -1))  # (T, B, V); XLA would copy the embedding's transpose
        else:
            logits = top @ self.softmax_weight[...]  # (T, B, V)
        logits = logits + self.softmax_bias[...]
        return carry, logits.swapaxes(0, 1)

    def load_parameters(self, parameters: Mapping[str, NDArray]) -> None:
        """Copy in the tensors of `rhn.spec.parameters`.

        Raises:
            ValueError: they do not fit the configuration.
        """
        check_parameters(self.config, parameters)

        def put(parameter: nnx.Param[Array], value: NDArray) -> None:
            parameter.set_value(jnp.array(value, parameter.dtype))

        put(self.embedding, parameters["embedding"])
        for i, cell in enumerate(self.rhn.cells):
            put(cell.input_weight, _gates_to_columns(parameters[f"layers.{i}.input_weight"]))
            for weight, value in zip(cell.recurrent_weights, parameters[f"layers.{i}.recurrent_weight"], strict=True):
                put(weight, _gates_to_columns(value))
            put(cell.bias, np.reshape(parameters[f"layers.{i}.bias"], cell.bias.shape))
        if self.softmax_weight is not None:
            put(self.softmax_weight, parameters["softmax.weight"])
        put(self.softmax_bias, parameters["softmax.bias"])

    def export_parameters(self) -> dict[str, NDArray]:
        """Copies of the parameters, by the names and in the shapes of `rhn.spec.parameters`."""
        gates = self.config.num_gates
        tensors = {"embedding": np.asarray(self.embedding)}
        for i, cell in enumerate(self.rhn.cells):
            tensors[f"layers.{i}.input_weight"] = _columns_to_gates(np.asarray(cell.input_weight), gates)
            tensors[f"layers.{i}.recurrent_weight"] = np.stack(
                [_columns_to_gates(np.asarray(weight), gates) for weight in cell.recurrent_weights]
            )
            tensors[f"layers.{i}.bias"] = np.asarray(cell.bias).reshape(self.config.recurrence_depth, gates, -1)
        if self.softmax_weight is not None:
            tensors["softmax.weight"] = np.asarray(self.softmax_weight)
        tensors["softmax.bias"] = np.asarray(self.softmax_bias)
        return {name: np.array(tensor, order="C") for name, tensor in tensors.items()}


def _gates_to_columns(weight: NDArray) -> NDArray:
    """(G, features, H) of the contract to (features, G*H)."""
    return np.concatenate(weight, axis=1)


def _columns_to_gates(weight: NDArray, num_gates: int) -> NDArray:
    """(features, G*H) to (G, features, H) of the contract."""
    return np.stack(np.split(weight, num_gates, axis=1))
