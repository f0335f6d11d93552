"""RHNCell: the parameters of one layer, and one time step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rhn.spec.arguments import check_choice, check_size
from rhn.spec.config import ACTIVATIONS
from rhn_torch.recurrence import masked_linear, plain_recurrence


class RHNCell(nn.Module):
    """One time step of a Recurrent Highway Network layer: L micro-steps of coupled (or not) highway gates.

    Zilly et al., "Recurrent Highway Networks", arXiv 1607.03474, equations 6 to 9.

    Args:
        input_size: features E of the input.
        hidden_size: units H.
        recurrence_depth: micro-steps L per time step.
        couple_gates: the carry gate is 1 - t (G = 2 gates: h, t); otherwise it has weights of its own (G = 3: h, t, c).
        activation: of the candidate h; "tanh", "sigmoid" or "relu".
        init_scale: parameters start uniform in (-init_scale, init_scale), but for the transform bias.
        transform_bias: initial value of the transform gates' bias, which is learned.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        input_weight: (G*H, E), one block of H rows per gate, as `nn.LSTMCell` stacks them.
        recurrent_weights: L matrices (G*H, H).
        bias: (L, G*H).

    Raises:
        ValueError: a size is less than 1, or the activation is not known.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        recurrence_depth: int,
        *,
        couple_gates: bool = True,
        activation: str = "tanh",
        init_scale: float = 0.04,
        transform_bias: float = -2.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "recurrence_depth": recurrence_depth}
        for name, size in sizes.items():
            check_size(name, size)
        check_choice("activation", activation, ACTIVATIONS)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.recurrence_depth = recurrence_depth
        self.couple_gates = couple_gates
        self.activation = activation
        self.init_scale = init_scale
        self.transform_bias = transform_bias

        width = (2 if couple_gates else 3) * hidden_size
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.input_weight = nn.Parameter(torch.empty(width, input_size, **factory))
        self.recurrent_weights = nn.ParameterList(
            torch.empty(width, hidden_size, **factory) for _ in range(recurrence_depth)
        )
        self.bias = nn.Parameter(torch.empty(recurrence_depth, width, **factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-self.init_scale, self.init_scale)
            self.bias[:, self.hidden_size : 2 * self.hidden_size] = self.transform_bias

    def forward(
        self, x: Tensor, h: Tensor, input_mask: Tensor | None = None, state_mask: Tensor | None = None
    ) -> Tensor:
        """The state (B, H) after one time step.

        Args:
            x: (B, E).
            h: (B, H), the state before.
            input_mask: (M, B, E) multiplies x; M = 1 if the gates share it, else G.
            state_mask: (M, B, H) multiplies what the gates see of the state, at every micro-step.
        """
        projected = self.project(x, input_mask).unsqueeze(0)  # (1, B, G*H)
        return plain_recurrence(
            projected, h, list(self.recurrent_weights), self.bias, state_mask, self.activation
        ).squeeze(0)

    def project(self, x: Tensor, input_mask: Tensor | None = None) -> Tensor:
        """What the input adds to the gates: (..., B, E) to (..., B, G*H), without bias."""
        return masked_linear(x, self.input_weight, input_mask)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}, recurrence_depth={self.recurrence_depth}"
        if not self.couple_gates:
            text += ", couple_gates=False"
        if self.activation != "tanh":
            text += f", activation={self.activation!r}"
        return text
