"""RHNLanguageModel: embedding, RHN layers, softmax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from numpy.typing import NDArray

from rhn.spec.config import RHNConfig
from rhn.spec.masks import NO_MASKS, VariationalMasks
from rhn.spec.parameters import check_parameters
from rhn_jax.cell import uniform_param
from rhn_jax.layer import RHN
from rhn_jax.weights import copy_of, from_spec, mask_tensors, put, to_spec


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
        embedding = self.embedding[...]  # (V, E)
        masks = mask_tensors(NO_MASKS if masks is None else masks, like=embedding)
        x = embedding[jnp.asarray(tokens).T]  # (T, B, E)
        if masks.embedding is not None:
            x = x * masks.embedding.T[..., None]
        carry, top = self.rhn(carry, x, masks)  # per layer (B, H); (T, B, H)
        if masks.output is not None:
            top = top * masks.output
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

        put(self.embedding, parameters["embedding"])
        for i, cell in enumerate(self.rhn.cells):
            prefix = f"layers.{i}."
            of_layer = {n.removeprefix(prefix): value for n, value in parameters.items() if n.startswith(prefix)}
            from_spec(cell, of_layer)
        if self.softmax_weight is not None:
            put(self.softmax_weight, parameters["softmax.weight"])
        put(self.softmax_bias, parameters["softmax.bias"])

    def export_parameters(self) -> dict[str, NDArray]:
        """Copies of the parameters, by the names and in the shapes of `rhn.spec.parameters`."""
        tensors = {"embedding": copy_of(self.embedding)}
        for i, cell in enumerate(self.rhn.cells):
            tensors |= {f"layers.{i}.{name}": tensor for name, tensor in to_spec(cell).items()}
        if self.softmax_weight is not None:
            tensors["softmax.weight"] = copy_of(self.softmax_weight)
        tensors["softmax.bias"] = copy_of(self.softmax_bias)
        return tensors
