"""RHNLanguageModel: embedding, RHN layers, softmax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from rhn.spec.config import RHNConfig
from rhn.spec.masks import NO_MASKS, VariationalMasks
from rhn.spec.parameters import check_parameters
from rhn_torch.layer import RHN
from rhn_torch.loss import softmax_cross_entropy


class RHNLanguageModel(nn.Module):
    """Language model of Zilly et al., arXiv 1607.03474, section 5.

    Args:
        config: the architecture.
        recurrence, init_scale, transform_bias: see `RHN`.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        embedding: (V, E); also the softmax weight if the configuration ties them.
        rhn: the `RHN` between embedding and softmax.
        softmax_weight: (V, H), or None if tied.
        softmax_bias: (V,).
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
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        self.rhn.reset_parameters()
        with torch.no_grad():
            for parameter in (self.embedding, self.softmax_weight, self.softmax_bias):
                if parameter is not None:
                    parameter.uniform_(-self.init_scale, self.init_scale)

    def forward(
        self, tokens: Tensor, state: Sequence[Tensor] | None = None, masks: VariationalMasks | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, T, V) of the next token at every position, and the state after the window.

        Args:
            tokens: (B, T) integers below V.
            state: per layer (B, H) before the window; None is zero.
            masks: of tensors or NumPy arrays; None drops nothing.

        Results have the dtype of the parameters, also under `torch.autocast`.
        """
        top, new_state = self._top(tokens, state, masks, sparse_gradient=False)  # (T, B, H)
        logits = F.linear(top, self._softmax_weight(), self.softmax_bias)  # (T, B, V)
        return logits.transpose(0, 1).to(self.softmax_bias.dtype), new_state

    def negative_log_likelihood(
        self,
        tokens: Tensor,
        targets: Tensor,
        state: Sequence[Tensor] | None = None,
        masks: VariationalMasks | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """That of `targets` (B, T) in nats, summed over window and batch, and the state after the window.

        The same as cross-entropy of what `forward` returns, in less time and memory, but without second derivative.
        """
        # A tied embedding has a dense gradient from the softmax already: a sparse one is added to it in place, where a
        # second dense one would cost another (V, H) matrix. On a GPU that sum would wait for the device.
        sparse_gradient = self.config.tie_weights and self.embedding.device.type == "cpu"
        top, new_state = self._top(tokens, state, masks, sparse_gradient)  # (T, B, H)
        nll = softmax_cross_entropy(top.flatten(0, 1), self._softmax_weight(), self.softmax_bias, targets.t().flatten())
        return nll, new_state

    def _top(
        self, tokens: Tensor, state: Sequence[Tensor] | None, masks: VariationalMasks | None, sparse_gradient: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """What the softmax layer sees, (T, B, H) and masked; and the state after the window."""
        masks = NO_MASKS if masks is None else masks
        x = F.embedding(tokens.t(), self.embedding, sparse=sparse_gradient)  # (T, B, E)
        if masks.embedding is not None:
            x = x * self._tensor(masks.embedding).t().unsqueeze(-1)
        h_0 = None if state is None else torch.stack(list(state))  # (num_layers, B, H)
        top, h_n = self.rhn(x, h_0, masks)  # (T, B, H), (num_layers, B, H)
        if masks.output is not None:
            top = top * self._tensor(masks.output)
        return top, list(h_n.unbind())

    def _softmax_weight(self) -> Tensor:
        """(V, H)"""
        return self.embedding if self.softmax_weight is None else self.softmax_weight

    def load_parameters(self, parameters: Mapping[str, NDArray]) -> None:
        """Copy in the tensors of `rhn.spec.parameters`.

        Raises:
            ValueError: they do not fit the configuration.
        """
        with torch.no_grad():
            for parameter, value in zip(self.parameters(), self.from_contract(parameters), strict=True):
                parameter.copy_(value)

    def export_parameters(self) -> dict[str, NDArray]:
        """Copies of the parameters, by the names and in the shapes of `rhn.spec.parameters`."""
        return self.to_contract(list(self.parameters()))

    def from_contract(self, arrays: Mapping[str, NDArray]) -> list[Tensor]:
        """Tensors in the order and layout of `parameters()`, from arrays by the names of `rhn.spec.parameters`.

        Raises:
            ValueError: the arrays do not fit the configuration.
        """
        check_parameters(self.config, arrays)
        named = {name: torch.as_tensor(np.asarray(array)) for name, array in arrays.items()}
        of_parameter: dict[str, Tensor] = {"embedding": named["embedding"], "softmax_bias": named["softmax.bias"]}
        if not self.config.tie_weights:
            of_parameter["softmax_weight"] = named["softmax.weight"].t()
        for i in range(self.config.num_layers):
            cell = f"rhn.cells.{i}"
            of_parameter[f"{cell}.input_weight"] = _gates_to_rows(named[f"layers.{i}.input_weight"])
            of_parameter[f"{cell}.bias"] = named[f"layers.{i}.bias"].flatten(1)
            for level, weight in enumerate(named[f"layers.{i}.recurrent_weight"]):  # (G, H, H)
                of_parameter[f"{cell}.recurrent_weights.{level}"] = _gates_to_rows(weight)
        return [of_parameter[name] for name, _ in self.named_parameters()]

    def to_contract(self, tensors: Sequence[Tensor]) -> dict[str, NDArray]:
        """Inverse of `from_contract`, for the parameters and whatever has their shapes, such as gradients; copies."""
        config = self.config
        names = [name for name, _ in self.named_parameters()]
        of_parameter = dict(zip(names, tensors, strict=True))
        named = {"embedding": of_parameter["embedding"]}
        for i in range(config.num_layers):
            cell = f"rhn.cells.{i}"
            levels = [of_parameter[f"{cell}.recurrent_weights.{level}"] for level in range(config.recurrence_depth)]
            named[f"layers.{i}.input_weight"] = _rows_to_gates(of_parameter[f"{cell}.input_weight"], config.num_gates)
            named[f"layers.{i}.recurrent_weight"] = torch.stack([_rows_to_gates(w, config.num_gates) for w in levels])
            named[f"layers.{i}.bias"] = of_parameter[f"{cell}.bias"].unflatten(1, (config.num_gates, -1))
        if not config.tie_weights:
            named["softmax.weight"] = of_parameter["softmax_weight"].t()
        named["softmax.bias"] = of_parameter["softmax_bias"]
        return {name: np.array(tensor.detach().cpu().numpy(), order="C") for name, tensor in named.items()}

    def _tensor(self, mask: object) -> Tensor:
        return torch.as_tensor(mask, dtype=self.embedding.dtype, device=self.embedding.device)


def _gates_to_rows(weight: Tensor) -> Tensor:
    """(G, features, H) of the contract to (G*H, features)."""
    return weight.transpose(1, 2).flatten(0, 1)


def _rows_to_gates(weight: Tensor, num_gates: int) -> Tensor:
    """(G*H, features) to (G, features, H) of the contract."""
    return weight.unflatten(0, (num_gates, -1)).transpose(1, 2)
