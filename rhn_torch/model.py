"""RHNLanguageModel: embedding, RHN layers, softmax."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from rhn.checkpoint import load_language_model
from rhn.port_tools import NO_REGULARIZATION, Regularization, Window
from rhn.sampling import sample_tokens
from rhn.spec.arguments import check_masks
from rhn.spec.config import RHNConfig
from rhn.spec.masks import VariationalMasks
from rhn_torch.layer import RHN
from rhn_torch.loss import log_likelihoods, softmax_cross_entropy
from rhn_torch.weights import from_spec, mask_tensors, to_spec


class Top(NamedTuple):
    """The outputs of the layers, before the softmax.

    Attributes:
        softmax_input: (T, B, H), masked; (T, B, E) if it is projected.
        masked: (T, B, H).
        outputs: (T, B, H), not masked.
        state: per layer (B, H), the state after the window.
    """

    softmax_input: Tensor
    masked: Tensor
    outputs: Tensor
    state: list[Tensor]


class RHNLanguageModel(nn.Module):
    """Language model of Zilly et al., arXiv 1607.03474, section 5.

    Args:
        config: the architecture.
        recurrence, init_scale, transform_bias: see `RHN`.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Attributes:
        embedding: (V, E); also the softmax weight if weights are tied.
        rhn: the `RHN` between embedding and softmax.
        softmax_weight: (V, H), or None if tied.
        softmax_bias: (V,).
        projection_weight: (E, H) between the top layer and the softmax, if weights are tied and E differs from H;
            else None.
    """

    def __init__(
        self,
        config: RHNConfig,
        *,
        recurrence: str = "fast",
        init_scale: float = 0.04,
        transform_bias: float = -2.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.init_scale = init_scale
        self.embedding = nn.Parameter(
            torch.empty(config.vocab_size, config.embedding_width, device=device, dtype=dtype)
        )
        self.rhn = RHN(
            config.embedding_width,
            config.hidden_size,
            config.recurrence_depth,
            config.num_layers,
            couple_gates=config.couple_gates,
            activation=config.activation,
            init_scale=init_scale,
            transform_bias=transform_bias,
            recurrence=recurrence,
            device=device,
            dtype=dtype,
        )
        self.softmax_weight = (
            None
            if config.tie_weights
            else nn.Parameter(torch.empty(config.vocab_size, config.hidden_size, device=device, dtype=dtype))
        )
        self.softmax_bias = nn.Parameter(torch.empty(config.vocab_size, device=device, dtype=dtype))
        self.projection_weight = (
            nn.Parameter(torch.empty(config.embedding_width, config.hidden_size, device=device, dtype=dtype))
            if config.has_projection
            else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values of all parameters."""
        self.rhn.reset_parameters()
        with torch.no_grad():
            for parameter in (self.embedding, self.softmax_weight, self.softmax_bias, self.projection_weight):
                if parameter is not None:
                    parameter.uniform_(-self.init_scale, self.init_scale)

    def forward(
        self, tokens: Tensor, state: Sequence[Tensor] | None = None, masks: VariationalMasks | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, T, V) of the next token at every position, and the state after the window.

        Args:
            tokens: (B, T) integers below V.
            state: per layer (B, H), the state before the window; None is zero.
            masks: of tensors or NumPy arrays; None drops nothing.

        Raises:
            ValueError: an argument has another shape.

        Results have the dtype of the parameters, also under `torch.autocast`.
        """
        top = self._top(tokens, state, masks, sparse_gradient=False)
        logits = F.linear(top.softmax_input, self._softmax_weight(), self.softmax_bias)  # (T, B, V)
        return logits.transpose(0, 1).to(self.softmax_bias.dtype), top.state

    def negative_log_likelihood(
        self,
        tokens: Tensor,
        targets: Tensor,
        state: Sequence[Tensor] | None = None,
        masks: VariationalMasks | None = None,
        length: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Negative log-likelihood of the targets (B, T) in nats, summed over window and batch; state after the window.

        The same as cross-entropy of what `forward` returns, in less time and memory, but without second derivative.
        With a `length`, (), the time steps after it are padding.
        """
        nll, _, new_state = self.training_loss(Window(tokens, targets, state, masks, length))
        return nll, new_state

    def log_likelihoods(self, window: Window) -> tuple[Tensor, list[Tensor]]:
        """Log-likelihood (B, T) of every target, from at most `MOST_LOGITS` logits at once; and the state."""
        tokens, targets, state, masks, _ = window
        top = self._top(tokens, state, masks, sparse_gradient=False)
        scores = log_likelihoods(
            top.softmax_input.flatten(0, 1), self._softmax_weight(), self.softmax_bias, targets.t().flatten()
        )
        return scores.view(targets.t().shape).t(), top.state

    def training_loss(
        self, window: Window, regularization: Regularization = NO_REGULARIZATION
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """`negative_log_likelihood`, what the regularisation of activations adds to it, and the state."""
        tokens, targets, state, masks, length = window
        # A tied embedding already has a dense gradient from the softmax. A sparse one is added to it in place; a
        # second dense one would cost another (V, H) matrix. On a GPU that sum would wait for the device.
        sparse_gradient = self.config.tie_weights and self.embedding.device.type == "cpu"
        top = self._top(tokens, state, masks, sparse_gradient, length)
        batch_size, steps = tokens.shape
        counts = None if length is None else torch.arange(steps, device=tokens.device) < length  # (T,)
        nll = softmax_cross_entropy(
            top.softmax_input.flatten(0, 1),
            self._softmax_weight(),
            self.softmax_bias,
            targets.t().flatten(),
            None if counts is None else counts.repeat_interleave(batch_size, output_size=steps * batch_size),
        )
        return nll, self._penalty(top, counts, regularization), top.state

    def _penalty(self, top: Top, counts: Tensor | None, regularization: Regularization) -> Tensor | None:
        """SPEC.md 5.11, summed over window and batch, mean over the units; padding is zero in the outputs already."""
        terms = []
        if regularization.activation is not None:
            terms.append(regularization.activation * top.masked.square().sum())
        if regularization.temporal is not None:
            changes = top.outputs.diff(dim=0)  # (T - 1, B, H)
            if counts is not None:
                changes = changes * counts[1:, None, None]
            terms.append(regularization.temporal * changes.square().sum())
        return torch.stack(terms).sum() / self.config.hidden_size if terms else None

    def _top(
        self,
        tokens: Tensor,
        state: Sequence[Tensor] | None,
        masks: VariationalMasks | None,
        sparse_gradient: bool,
        length: Tensor | None = None,
    ) -> Top:
        """Everything below the softmax."""
        if tokens.dim() != 2 or tokens.is_floating_point():
            raise ValueError(
                f"tokens of shape {tuple(tokens.shape)} and dtype {tokens.dtype} are not accepted: expected (B, T)"
                " integers"
            )
        if masks is not None:
            check_masks(self.config, masks, *tokens.shape)
        masks = mask_tensors(masks, like=self.embedding)
        x = F.embedding(tokens.t(), self.embedding, sparse=sparse_gradient)  # (T, B, E)
        if masks.embedding is not None:
            x = x * masks.embedding.t().unsqueeze(-1)
        h_0 = None if state is None else torch.stack(list(state))  # (num_layers, B, H)
        if h_0 is not None and masks.carried is not None:
            h_0 = h_0 * masks.carried.unsqueeze(-1)
        lengths = None if length is None else length.expand(len(tokens))  # (B,)
        outputs, h_n = self.rhn(x, h_0, masks, lengths)  # (T, B, H), (num_layers, B, H)
        masked = outputs
        if masks.output is not None:
            masked = outputs * (masks.output if masks.output.dim() == 2 else masks.output.transpose(0, 1))
        projected = masked if self.projection_weight is None else F.linear(masked, self.projection_weight)
        return Top(projected, masked, outputs, list(h_n.unbind()))

    def _softmax_weight(self) -> Tensor:
        """(V, H); (V, E) if the top is projected."""
        return self.embedding if self.softmax_weight is None else self.softmax_weight

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str], **options: Any) -> RHNLanguageModel:
        """Load the model from a checkpoint, "best" or "last", of any port.

        Args:
            path: the checkpoint file, or a folder written by `export_hub`.
            options: arguments of the constructor, except `config`.

        Raises:
            CheckpointError: the file is not a checkpoint of a language model.
        """
        checkpoint, config, _ = load_language_model(path)
        model = cls(config, **options)
        model.load_parameters(checkpoint.parameters)
        return model

    @torch.no_grad()
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
            logits, state = self(torch.tensor([[token]], device=self.embedding.device), state)  # (1, 1, V)
            return logits[0, 0].double().cpu().numpy(), state

        return list(sample_tokens(step, prompt, length, temperature=temperature, top_k=top_k, seed=seed))

    def load_parameters(self, parameters: Mapping[str, NDArray]) -> None:
        """Load copies of the tensors, by the names of `rhn.spec.parameters`.

        Raises:
            ValueError: they do not fit the configuration.
        """
        values = from_spec(self.config, parameters)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(values[name])

    def export_parameters(self) -> dict[str, NDArray]:
        """Copies of the parameters, by the names and in the shapes of `rhn.spec.parameters`."""
        return to_spec(self.config, dict(self.named_parameters()))
