"""RHNLanguageModel: embedding, RHN layers, softmax."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from numpy.typing import NDArray

from rhn.checkpoint import load_language_model
from rhn.sampling import sample_tokens
from rhn.spec.arguments import check_masks
from rhn.spec.config import RHNConfig
from rhn.spec.masks import NO_MASKS, VariationalMasks
from rhn.spec.parameters import check_parameters
from rhn_jax.cell import uniform
from rhn_jax.layer import RHN
from rhn_jax.loss import softmax_cross_entropy
from rhn_jax.weights import copy_of, mask_tensors, put


class Top(NamedTuple):
    """The outputs of the layers, before the softmax.

    Attributes:
        masked: (T, B, H).
        outputs: (T, B, H), not masked.
        state: per layer (B, H), the state after the window.
    """

    masked: Array
    outputs: Array
    state: list[Array]


class RHNLanguageModel(nnx.Module):
    """Language model of Zilly et al., arXiv 1607.03474, section 5.

    Args:
        config: the architecture.
        init_scale, param_dtype, rngs, layer_options: see `RHN` and `RHNCell`; `layer_options` are all other arguments.

    Attributes:
        embedding: (V, E); also the softmax weight if weights are tied.
        rhn: the `RHN` between embedding and softmax.
        softmax_weight: (H, V), or None if tied.
        softmax_bias: (V,).
        projection_weight: (H, E) between the top layer and the softmax, if weights are tied and E differs from H;
            else None.
    """

    def __init__(
        self,
        config: RHNConfig,
        *,
        init_scale: float = 0.04,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        **layer_options: Any,
    ) -> None:
        def parameter(*shape: int) -> nnx.Param[Array]:
            return nnx.Param(uniform(init_scale)(rngs.params(), shape, param_dtype))

        self.config = config
        self.embedding = parameter(config.vocab_size, config.embedding_width)
        self.rhn = RHN(
            config.embedding_width,
            config.hidden_size,
            config.recurrence_depth,
            config.num_layers,
            time_major=True,
            return_carry=True,
            share_gate_masks=config.share_gate_masks,
            couple_gates=config.couple_gates,
            activation=config.activation,
            init_scale=init_scale,
            param_dtype=param_dtype,
            rngs=rngs,
            **layer_options,
        )
        self.softmax_weight = None if config.tie_weights else parameter(config.hidden_size, config.vocab_size)
        self.softmax_bias = parameter(config.vocab_size)
        self.projection_weight = (
            parameter(config.hidden_size, config.embedding_width) if config.has_projection else None
        )

    def __call__(
        self, tokens: ArrayLike, state: Sequence[ArrayLike] | None = None, masks: VariationalMasks | None = None
    ) -> tuple[Array, list[Array]]:
        """Logits (B, T, V) of the next token at every position, and the state after the window.

        Args:
            tokens: (B, T) integers below V.
            state: per layer (B, H), the state before the window; None is zero.
            masks: None drops nothing.

        Raises:
            TypeError: the state comes first, as in version 0.1.
            ValueError: tokens, state or masks have another shape.
        """
        if tokens is None or (isinstance(tokens, list | tuple) and any(jnp.ndim(s) == 2 for s in tokens)):
            raise TypeError("model(carry, tokens, masks) is now logits, state = model(tokens, state, masks)")
        tokens = jnp.asarray(tokens)
        if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise ValueError(
                f"tokens of shape {tokens.shape} and dtype {tokens.dtype} are not accepted: expected (B, T) integers"
            )
        top = self.top(tokens, state, masks)
        return self.logits(top.masked).swapaxes(0, 1), top.state

    def top(
        self,
        tokens: Array,
        state: Sequence[ArrayLike] | None = None,
        masks: VariationalMasks | None = None,
        length: Array | None = None,
    ) -> Top:
        """Everything below the softmax; arguments as in `__call__`. Time steps after `length`, (), are padding."""
        masks = NO_MASKS if masks is None else masks
        check_masks(self.config, masks, *tokens.shape)
        embedding = self.embedding[...]  # (V, E)
        masks = mask_tensors(masks, like=embedding)
        x = embedding[tokens.T]  # (T, B, E)
        if masks.embedding is not None:
            x = x * masks.embedding.T[..., None]
        if state is not None and masks.carried is not None:
            state = [jnp.asarray(s) * masks.carried[:, None] for s in state]
        lengths = None if length is None else jnp.broadcast_to(length, tokens.shape[:1])  # (B,)
        # Per layer (B, H); (T, B, H).
        new_state, outputs = self.rhn(x, initial_carry=state, masks=masks, seq_lengths=lengths)
        masked = outputs
        if masks.output is not None:
            masked = outputs * (masks.output if masks.output.ndim == 2 else masks.output.swapaxes(0, 1))
        return Top(masked, outputs, new_state)

    def logits(self, top: Array) -> Array:
        """(T, B, V) from the masked outputs of the top layer (T, B, H)."""
        # Not `@ weight.T`: XLA would copy the embedding's transpose.
        return jnp.tensordot(self._projected(top), self._softmax_weight(), axes=(-1, -1)) + self.softmax_bias[...]

    def negative_log_likelihood(self, top: Array, targets: Array, counts: Array | None) -> Array:
        """Of the targets (T, B) in nats, summed, from the masked outputs of the top layer (T, B, H).

        `counts` (T,) says which time steps count; None: all.
        """
        rows, bias = self._projected(top).reshape(targets.size, -1), self.softmax_bias[...]
        counts = None if counts is None else counts.repeat(targets.shape[1])
        return softmax_cross_entropy(rows, self._softmax_weight(), bias, targets.reshape(-1), counts)

    def _projected(self, top: Array) -> Array:
        """(..., H) to (..., E) if weights are tied and E differs from H."""
        return top if self.projection_weight is None else top @ self.projection_weight[...]

    def _softmax_weight(self) -> Array:
        """(V, H); (V, E) if the top is projected."""
        return self.embedding[...] if self.softmax_weight is None else self.softmax_weight[...].T

    @classmethod
    def from_checkpoint(
        cls, path: str | os.PathLike[str], *, rngs: nnx.Rngs | None = None, **options: Any
    ) -> RHNLanguageModel:
        """Load the model from a checkpoint, "best" or "last", of any port.

        Args:
            path: the checkpoint file, or a folder written by `export_hub`.
            rngs, options: arguments of the constructor, except `config`.

        Raises:
            CheckpointError: the file is not a checkpoint of a language model.
        """
        checkpoint, config, _ = load_language_model(path)
        model = cls(config, rngs=nnx.Rngs(0) if rngs is None else rngs, **options)
        model.load_parameters(checkpoint.parameters)
        return model

    def generate(
        self,
        prompt: Sequence[int],
        length: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
    ) -> list[int]:
        """Sample `length` tokens that continue the prompt, without dropout.

        The tokens are the same in every port with the same weights, up to rounding.

        Args:
            prompt: at least one token, read first.
            length: number of tokens to sample.
            temperature, top_k, seed: see `rhn.sampling.sample_tokens`.

        Raises:
            ValueError: an argument is not accepted.
        """

        def step(token: int, state: Any) -> tuple[NDArray, Any]:
            state = self.rhn.initialize_carry((1, self.config.embedding_width)) if state is None else state
            logits, state = _next(self, jnp.array([[token]]), state)  # (1, 1, V)
            return np.asarray(logits[0, 0]), state

        return list(sample_tokens(step, prompt, length, temperature=temperature, top_k=top_k, seed=seed))

    def load_parameters(self, parameters: Mapping[str, NDArray]) -> None:
        """Load copies of the tensors, by the names of `rhn.spec.parameters`.

        Raises:
            ValueError: they do not fit the configuration.
        """
        check_parameters(self.config, parameters)
        put(self.embedding, parameters["embedding"])
        self.rhn.load_parameters({name: p for name, p in parameters.items() if name.startswith("layers.")})
        if self.softmax_weight is not None:
            put(self.softmax_weight, parameters["softmax.weight"])
        put(self.softmax_bias, parameters["softmax.bias"])
        if self.projection_weight is not None:
            put(self.projection_weight, parameters["projection.weight"])

    def export_parameters(self) -> dict[str, NDArray]:
        """Copies of the parameters, by the names and in the shapes of `rhn.spec.parameters`."""
        tensors = {"embedding": copy_of(self.embedding), **self.rhn.export_parameters()}
        if self.softmax_weight is not None:
            tensors["softmax.weight"] = copy_of(self.softmax_weight)
        tensors["softmax.bias"] = copy_of(self.softmax_bias)
        if self.projection_weight is not None:
            tensors["projection.weight"] = copy_of(self.projection_weight)
        return tensors


@nnx.jit
def _next(model: RHNLanguageModel, tokens: Array, state: list[Array]) -> tuple[Array, list[Array]]:
    return model(tokens, state)
