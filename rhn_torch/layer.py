"""RHN: Recurrent Highway layers, stacked, over a window of time steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from rhn.spec.arguments import check_choice, check_size
from rhn.spec.masks import VariationalMasks
from rhn_torch.cell import RHNCell
from rhn_torch.fast_recurrence import fast_recurrence
from rhn_torch.recurrence import plain_recurrence
from rhn_torch.weights import mask_tensors


def _triton_recurrence(*arguments: Any) -> Tensor:
    """`triton_recurrence`, imported where it is used: Triton is heavy, and not everywhere."""
    try:
        from rhn_torch.gpu.triton_recurrence import triton_recurrence
    except ModuleNotFoundError as error:
        raise ImportError(
            "recurrence='triton' needs the package triton, which comes with PyTorch for NVIDIA GPUs"
        ) from error
    return triton_recurrence(*arguments)


RECURRENCES: dict[str, Callable[..., Tensor]] = {
    "fast": fast_recurrence,
    "plain": plain_recurrence,
    "recompute": partial(fast_recurrence, recompute=True),
    "triton": _triton_recurrence,
}


class RHN(nn.Module):
    """Recurrent Highway Network over a sequence, used like `nn.GRU`.

    Zilly et al., "Recurrent Highway Networks", arXiv 1607.03474.

    Args:
        input_size: features E of the input of the first layer.
        hidden_size: units H of every layer.
        recurrence_depth: micro-steps L per time step.
        num_layers: layers stacked on each other.
        batch_first: input and output are (B, T, features) instead of (T, B, features). States are not affected.
        couple_gates, activation, init_scale, transform_bias, device, dtype: see `RHNCell`.
        recurrence: "fast" has a hand-written backward; "plain" is slower and has derivatives of any order; "recompute"
            is "fast" in less memory: it keeps no gates for the backward, and computes them again there;
            "triton" is "fast" in kernels for NVIDIA GPUs, in float32, and needs the package triton.

    Attributes:
        cells: one `RHNCell` per layer, which holds the layer's parameters.

    Raises:
        ValueError: an option has a value that is not accepted.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        recurrence_depth: int,
        num_layers: int = 1,
        batch_first: bool = False,
        *,
        couple_gates: bool = True,
        activation: str = "tanh",
        init_scale: float = 0.04,
        transform_bias: float = -2.0,
        recurrence: str = "fast",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_size("num_layers", num_layers)
        check_choice("recurrence", recurrence, RECURRENCES)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.recurrence_depth = recurrence_depth
        self.num_layers = num_layers
        self.batch_first = batch_first
        self.recurrence = recurrence
        options: dict[str, Any] = {
            "couple_gates": couple_gates,
            "activation": activation,
            "init_scale": init_scale,
            "transform_bias": transform_bias,
            "device": device,
            "dtype": dtype,
        }
        cells = nn.ModuleList(
            RHNCell(input_size if layer == 0 else hidden_size, hidden_size, recurrence_depth, **options)
            for layer in range(num_layers)
        )
        self.cells = cast("Sequence[RHNCell]", cells)  # nn.ModuleList does not say what it holds

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        for cell in self.cells:
            cell.reset_parameters()

    def forward(
        self, x: Tensor, h_0: Tensor | None = None, masks: VariationalMasks | None = None
    ) -> tuple[Tensor, Tensor]:
        """States of the top layer after every time step, and of every layer after the last.

        Args:
            x: (T, B, E), or (B, T, E) with `batch_first`; or one sequence (T, E).
            h_0: (num_layers, B, H), or (num_layers, H) for one sequence; None is zero.
            masks: variational dropout, of which `input` and `state` are used: per layer (M, B, E_i) and (M, B, H),
                M = 1 if the gates share a mask, else G. Tensors or NumPy arrays. None drops nothing.

        Returns:
            output: (T, B, H), or as x has it.
            h_n: (num_layers, B, H), or as h_0 has it.

        Raises:
            ValueError: x or h_0 has another shape.
        """
        if x.dim() not in (2, 3) or x.shape[-1] != self.input_size:
            raise ValueError(f"x has shape {tuple(x.shape)}, needed are 2 or 3 axes, the last of {self.input_size}")
        if x.dim() == 2:
            output, h_n = self._forward(x.unsqueeze(1), None if h_0 is None else h_0.unsqueeze(1), masks)
            return output.squeeze(1), h_n.squeeze(1)
        if self.batch_first:
            output, h_n = self._forward(x.transpose(0, 1), h_0, masks)
            return output.transpose(0, 1), h_n
        return self._forward(x, h_0, masks)

    def _forward(self, x: Tensor, h_0: Tensor | None, masks: VariationalMasks | None) -> tuple[Tensor, Tensor]:
        """As `forward`, time first and batched."""
        state_shape = (self.num_layers, x.shape[1], self.hidden_size)
        if h_0 is None:
            h_0 = self.cells[0].bias.new_zeros(state_shape)
        elif tuple(h_0.shape) != state_shape:
            raise ValueError(f"h_0 has shape {tuple(h_0.shape)}, needed is {state_shape}")
        masks = mask_tensors(masks, like=self.cells[0].input_weight)
        # Exported programs take the plain recurrence: its backward is of no use there, and its operations are all
        # functional, as export wants them.
        recurrence = plain_recurrence if torch.compiler.is_exporting() else RECURRENCES[self.recurrence]

        h_n = []
        for layer, (cell, h) in enumerate(zip(self.cells, h_0.unbind(0), strict=True)):
            x = cell(x, h, *masks.of_layer(layer), recurrence)  # (T, B, H)
            h_n.append(x[-1])  # (B, H)
        return x, torch.stack(h_n)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}, recurrence_depth={self.recurrence_depth}"
        if self.num_layers != 1:
            text += f", num_layers={self.num_layers}"
        if self.batch_first:
            text += ", batch_first=True"
        if self.recurrence != "fast":
            text += f", recurrence={self.recurrence!r}"
        return text
