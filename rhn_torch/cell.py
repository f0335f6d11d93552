"""RHNCell: the parameters of one layer, and one time step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from rhn.spec.arguments import check_choice, check_flag, check_number, check_size
from rhn.spec.config import ACTIVATIONS
from rhn_torch.arguments import check_dtype, check_input, check_state, renamed
from rhn_torch.recurrence import masked_linear, plain_recurrence


class RHNCell(nn.Module):
    """One time step of a Recurrent Highway Network layer, used like `nn.GRUCell`.

    A time step starts from the previous state s and takes L micro-steps, l = 0..L-1. With the gates g in {h, t}, or
    {h, t, c} (Zilly et al., arXiv 1607.03474; row vectors, `*` is elementwise):

        z_g = (s * mask_g) @ R[l,g] + b[l,g]  (+ (x * mask_g) @ W[g]  at the first micro-step)    SPEC 2.2, 2.3
        h = tanh(z_h)   t = sigmoid(z_t)   c = 1 - t, or sigmoid(z_c)                             eq. 7-9, SPEC 2.4-2.6
        s = h * t + s * c                                                                         eq. 6, SPEC 2.4

    Args:
        input_size: number of input features E.
        hidden_size: number of units H.
        recurrence_depth: number of micro-steps L per time step.
        bias: whether the gates have biases b; without them, transform_bias has no effect.
        couple_gates: the carry gate is 1 - t (G = 2 gates: h, t); otherwise it has its own weights (G = 3: h, t, c).
        activation: nonlinearity of the candidate h: "tanh", "sigmoid" or "relu".
        init_scale: parameters start uniform in (-init_scale, init_scale), except for the transform bias.
        transform_bias: initial value of the transform gates' bias, which is learned.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Attributes:
        input_weight: (G*H, E), one block of H rows per gate, as `nn.LSTMCell` stacks them.
        recurrent_weights: L matrices (G*H, H).
        bias: (L, G*H), or None.

    Raises:
        ValueError: a size is less than 1, init_scale is less than 0, or the activation is not known.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        recurrence_depth: int = 5,
        bias: bool = True,
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
        check_flag("bias", bias)
        check_flag("couple_gates", couple_gates)
        check_choice("activation", activation, ACTIVATIONS)
        check_number("init_scale", init_scale, zero=True)
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
        self.bias = nn.Parameter(torch.empty(recurrence_depth, width, **factory)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values of all parameters."""
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-self.init_scale, self.init_scale)
            if self.bias is not None:
                self.bias[:, self.hidden_size : 2 * self.hidden_size] = self.transform_bias

    @renamed(x="input", h="hx")
    def forward(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        input_mask: Tensor | None = None,
        state_mask: Tensor | None = None,
        update_mask: Tensor | None = None,
        recurrence: Callable[..., Tensor] = plain_recurrence,
    ) -> Tensor:
        """The state (B, H) after one time step; given a window of inputs, the states (T, B, H) after every one.

        Args:
            input: x, (B, E); or (E,) without a batch, with a result (H,); or a window (T, B, E).
            hx: (B, H), the state before; without a batch (H,). None is zero.
            input_mask: (M, B, E) multiplies x, or (M, B, T, E) a window; M = 1 if the gates share it, else G.
            state_mask: (M, B, H) multiplies what the gates see of the state, at every micro-step.
            update_mask: (B, H) multiplies the candidate h, at every micro-step.
            recurrence: what computes a window: `plain_recurrence`, or one with the same arguments and results.

        Raises:
            ValueError: input or hx has another shape or dtype.
        """
        x, h = input, hx
        check_input(x, self.input_size, (1, 2, 3))
        if x.dim() == 1:
            x, h = x.unsqueeze(0), None if h is None else h.unsqueeze(0)
        window = x if x.dim() == 3 else x.unsqueeze(0)  # (T, B, E)
        state_shape = (window.shape[1], self.hidden_size)
        check_state(h, state_shape)
        if h is None:
            h = self.input_weight.new_zeros(state_shape)
        check_dtype("input", window, self.input_weight)
        check_dtype("hx", h, self.input_weight)

        weights = list(self.recurrent_weights)  # L of (G*H, H)
        biases = weights[0].new_zeros(len(weights), weights[0].shape[0]) if self.bias is None else self.bias  # (L, G*H)
        if input_mask is not None and input_mask.dim() == 4:
            input_mask = input_mask.transpose(1, 2)  # (M, T, B, E)
        projected = masked_linear(window, self.input_weight, input_mask)  # (T, B, G*H)
        states = recurrence(projected, h, weights, biases, state_mask, self.activation, update_mask)  # (T, B, H)
        if input.dim() == 3:
            return states
        return states[0] if input.dim() == 2 else states[0, 0]

    def __prepare_scriptable__(self) -> NoReturn:
        raise NotImplementedError(
            "torch.jit.script is not supported by RHNCell: use torch.compile, torch.export or torch.jit.trace"
        )

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}, recurrence_depth={self.recurrence_depth}"
        if self.bias is None:
            text += ", bias=False"
        if not self.couple_gates:
            text += ", couple_gates=False"
        if self.activation != "tanh":
            text += f", activation={self.activation!r}"
        return text
