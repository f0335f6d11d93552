"""The recurrence of `rhn_torch.recurrence` with one Triton kernel per micro-step, forward and backward.

Shapes as in `rhn_torch.recurrence`, but H is padded to whole tiles. This is exact: padded weights are zero.

Not yet measured on a GPU. The tests run the kernels in Triton's interpreter and compile them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import functional as F

from rhn_torch.fast_kernels import add_weight_gradient
from rhn_torch.fast_recurrence import fast_recurrence
from rhn_torch.gpu.triton_kernels import micro_step, micro_step_backward
from rhn_torch.precision import factor_dtype

_SUMMED = 64  # terms of a product that are summed at a time; H is padded to a multiple


def triton_recurrence(
    projected: Tensor,
    state: Tensor,
    recurrent_weights: Sequence[Tensor],
    biases: Tensor,
    state_mask: Tensor | None = None,
    activation: str = "tanh",
    update_mask: Tensor | None = None,
) -> Tensor:
    """As `fast_recurrence`, on an NVIDIA GPU, in float32.

    With an `update_mask`, which the kernels do not support, it calls `fast_recurrence`.

    Raises:
        ValueError: `state_mask` requires a gradient, or the parameters are not float32.
        RuntimeError: at backward, if a second derivative is asked for.
    """
    if update_mask is not None:
        return fast_recurrence(projected, state, recurrent_weights, biases, state_mask, activation, update_mask)
    if state_mask is not None and state_mask.requires_grad:
        raise ValueError("state_mask requires a gradient, which triton_recurrence does not give: use plain_recurrence")
    if biases.dtype != torch.float32:
        raise ValueError(f"parameters of {biases.dtype} are not accepted by triton_recurrence: expected float32")
    hidden_size = state.shape[1]
    num_gates = biases.shape[1] // hidden_size
    padding = -hidden_size % _SUMMED

    def pad(x: Tensor) -> Tensor:
        """(..., H) to (..., H + padding)"""
        return F.pad(x.float(), (0, padding)).contiguous()

    def pad_gates(x: Tensor) -> Tensor:
        """(..., G*H) to (..., G*(H + padding))"""
        return pad(x.unflatten(-1, (num_gates, hidden_size))).flatten(-2)

    arguments = (
        None if state_mask is None else pad(state_mask),
        pad_gates(projected),
        pad(state),
        pad_gates(biases),
        *(pad(pad_gates(weight.t()).t()) for weight in recurrent_weights),
    )
    with torch.cuda.device_of(projected):  # Triton launches on the current device, whichever holds the tensors
        outputs: Tensor = _TritonRecurrence.apply(activation, factor_dtype(biases), *arguments)  # (T, B, H + padding)
    return outputs[..., :hidden_size]


class _TritonRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        activation: str,
        dtype_of_factors: torch.dtype,
        state_mask: Tensor | None,
        projected: Tensor,
        state: Tensor,
        biases: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        (length, batch_size, width), hidden_size, depth = projected.shape, state.shape[1], len(parameters)
        weights = [parameter.to(dtype_of_factors) for parameter in parameters]  # (G*H, H) each
        # [step][time]: the state that the micro-step starts from; [0][T] is the one after the window.
        states = state.new_empty(depth, length + 1, batch_size, hidden_size)
        gates = state.new_empty(depth, length, batch_size, width)
        launch = _Launch(batch_size, hidden_size, width // hidden_size, state_mask, activation)
        states[0, 0] = state
        for time in range(length):
            for step in range(depth):
                launch(
                    micro_step,
                    states[step, time],
                    weights[step],
                    biases[step],
                    projected[time],
                    states[step + 1, time] if step + 1 < depth else states[0, time + 1],
                    gates[step, time],
                    IS_FIRST=step == 0,
                )
        ctx.launch = launch
        ctx.save_for_backward(state_mask, states, gates, *weights)
        return states[0, 1:].clone()  # (T, B, H); the caller may change them in place

    @staticmethod
    def backward(ctx: Any, d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("triton_recurrence has no second derivative: use plain_recurrence (recurrence='plain')")
        state_mask, states, gates, *weights = ctx.saved_tensors
        depth, length, *_ = gates.shape
        d_outputs = d_outputs.contiguous()
        d_gates = torch.empty_like(gates)  # (L, T, B, G*H): of the gates' arguments
        d_state = torch.zeros_like(states[0, 0])  # (B, H)

        # Each launch ends the backward of one micro-step and begins the backward of the micro-step before it. The first
        # launch has none to end: from zeros, it only adds the gradient of the last output.
        later = (torch.zeros_like(gates[0, 0]), weights[0], gates[0, 0])  # d_z (B, G*H), weight, gates (B, G*H)
        for time in reversed(range(length)):
            for step in reversed(range(depth)):
                now = (states[step, time], gates[step, time], d_gates[step, time])
                is_last = step == depth - 1
                ctx.launch(micro_step_backward, *later, d_state, d_outputs[time], *now, ADD_OUTPUT=is_last, BEGIN=True)
                later = (d_gates[step, time], weights[step], gates[step, time])
        ctx.launch(micro_step_backward, *later, d_state, *(None,) * 4, ADD_OUTPUT=False, BEGIN=False)

        d_weights = [torch.empty_like(weight, dtype=d_state.dtype) for weight in weights]  # (G*H, H) each
        for d_weight, s, d_z in zip(d_weights, states[:, :-1], d_gates, strict=True):  # (T, B, H), (T, B, G*H)
            d_z_of_gates = d_z.unflatten(-1, (-1, d_state.shape[1])).permute(2, 0, 1, 3)  # (G, T, B, H)
            add_weight_gradient(d_weight, s, d_z_of_gates, state_mask, weights[0].dtype, beta=0)
        return None, None, None, d_gates[0], d_state, d_gates.sum(dim=(1, 2)), *d_weights


class _Launch:
    """Launches kernels with what is the same for all micro-steps of a window."""

    def __init__(
        self, batch_size: int, hidden_size: int, num_gates: int, state_mask: Tensor | None, activation: str
    ) -> None:
        self._state_mask = state_mask
        # A tile's rows are of the batch, at least the 16 that a tensor core takes; few columns while there are few
        # rows, so that there are more programs: 52 at PTB size (H 830, B 20), for the 132 processors of a Hopper GPU.
        tile_rows = min(64, max(16, triton.next_power_of_2(batch_size)))
        tile_columns = 16 if tile_rows <= 32 else 32
        self._grid = (hidden_size // tile_columns, triton.cdiv(batch_size, tile_rows))
        self._options = {
            "batch_size": batch_size,
            "hidden_size": hidden_size,
            "NUM_GATES": num_gates,
            "NUM_MASKS": 0 if state_mask is None else len(state_mask),
            "ACTIVATION": activation,
            "PRECISION": "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee",
            "ROWS": tile_rows,
            "COLUMNS": tile_columns,
            "SUMMED": _SUMMED,
        }

    def __call__(self, kernel: Any, *tensors: Tensor | None, **options: bool) -> None:
        kernel[self._grid](*tensors, self._state_mask, **options, **self._options)
