"""The computation behind `fast_recurrence`: forward and backward of a window, written by hand.

The backward first computes all pointwise factors in bulk. Then each micro-step needs one elementwise update and one
matrix product. At the end, the gradient of each weight is one matrix product over time and batch. Shapes: see
recurrence.py.

Gates have their own axis, (G, B, H), and one `bmm` computes their products, whether or not they share a mask. On a CPU,
this is faster for large weights than one product that is G times as wide.

Lists of views are made before the loops, and everything inside the loops works in place: at small sizes, creating
tensors takes longer than arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rhn_torch.precision import add_product, product

_ACTIVATION_INTO: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tanh": lambda z, out: torch.tanh(z, out=out),
    "sigmoid": lambda z, out: torch.sigmoid(z, out=out),
    "relu": lambda z, out: torch.clamp_min(z, 0, out=out),
}
# out = gradient * slope, the slope as a function of the activation's value.
_SCALE_BY_SLOPE: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "tanh": lambda gradient, h, out: torch.ops.aten.tanh_backward.grad_input(gradient, h, grad_input=out),
    "sigmoid": lambda gradient, h, out: torch.ops.aten.sigmoid_backward.grad_input(gradient, h, grad_input=out),
    "relu": lambda gradient, h, out: torch.ops.aten.threshold_backward.grad_input(gradient, h, 0, grad_input=out),
}

# Rows (time x batch) that the backward treats at a time. Enough to keep the weight gradients' matrix products
# efficient; few enough that its buffers stay small beside what the forward saved.
_BACKWARD_ROWS = 1024


def window_forward(
    projected: Tensor,
    state: Tensor,
    weights: Sequence[Tensor],
    biases: Tensor,
    state_mask: Tensor | None,
    update_mask: Tensor | None,
    activation: str,
    keep: Sequence[str],
    padding: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (T, B, H), gate values (L, G, T, B, H) and the states between micro-steps (L-1, T, B, H).

    The last two are scratch memory of a single micro-step unless "gates" and "states" are in `keep`. Weights are of the
    dtype to which factors are rounded, which may be lower than the dtype of all other tensors.
    """
    (length, batch_size, width), hidden_size, depth = projected.shape, state.shape[1], len(weights)
    num_gates = width // hidden_size
    activate = _ACTIVATION_INTO[activation]
    rounded = weights[0].dtype != state.dtype

    outputs = state.new_empty(length, batch_size, hidden_size)
    if "gates" in keep:
        gates = state.new_empty(depth, num_gates, length, batch_size, hidden_size)
    else:
        gates = state.new_empty(num_gates, 1, batch_size, hidden_size).expand(depth, -1, length, -1, -1)
    if "states" in keep:
        inner = state.new_empty(depth - 1, length, batch_size, hidden_size)
    else:
        inner = state.new_empty(batch_size, hidden_size).expand(depth - 1, length, -1, -1)
    z = state.new_empty(num_gates, batch_size, hidden_size)  # scratch: the gates' arguments
    masked = weights[0].new_empty(1 if state_mask is None else len(state_mask), batch_size, hidden_size)  # scratch
    u = masked.expand(z.shape)  # (G, B, H): what each gate sees of the state
    updated = None if update_mask is None else torch.empty_like(state)  # scratch: the masked candidate h

    weights_of_gates = [_by_gate(weight, hidden_size).transpose(1, 2) for weight in weights]  # [micro_step] (G, H, H)
    first_offsets = (projected + biases[0]).unflatten(-1, (num_gates, -1)).transpose(1, 2).unbind()  # [time] (G, B, H)
    offsets = biases.unflatten(-1, (num_gates, 1, -1)).expand(-1, *z.shape).unbind()  # [micro_step] (G, B, H)
    z_h, z_t, *z_c = z.unbind()  # (B, H) each
    gate_views = [[gate.unbind() for gate in values] for values in gates]  # [micro_step][gate][time] (B, H)
    state_views = [*(s.unbind() for s in inner), outputs.unbind()]  # [micro_step][time] (B, H): at the micro-step's end

    s = state
    for time in range(length):
        for micro_step in range(depth):
            if state_mask is not None:
                torch.mul(s, state_mask, out=masked)
            elif rounded:
                masked.copy_(s)
            else:
                u = s.expand(z.shape)
            add_product(
                offsets[micro_step] if micro_step else first_offsets[time], u, weights_of_gates[micro_step], out=z
            )
            h = activate(z_h, gate_views[micro_step][0][time])
            t = torch.sigmoid(z_t, out=gate_views[micro_step][1][time])
            if update_mask is not None:
                h = torch.mul(h, update_mask, out=updated)
            s_next = state_views[micro_step][time]
            if z_c:
                c = torch.sigmoid(z_c[0], out=gate_views[micro_step][2][time])
                torch.mul(s, c, out=s_next).addcmul_(h, t)
            else:
                torch.lerp(s, h, t, out=s_next)  # s + t * (h - s)
            s = s_next
        if padding is not None:
            s.masked_fill_(padding[time], 0)  # whose gradient is 0 already
    return outputs, gates, inner


def _by_gate(weight: Tensor, hidden_size: int) -> Tensor:
    """(G*H, H) to (G, H, H)."""
    return weight.unflatten(0, (-1, hidden_size))


def _gates(
    projected: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: Tensor,
    state_mask: Tensor | None,
    activation: str,
) -> Tensor:
    """The gate values (L, G, T, B, H) of `window_forward` again.

    `states` are per micro-step (T, B, H), the state that each starts from.
    """
    (length, batch_size, hidden_size), num_gates = states[0].shape, biases.shape[1] // states[0].shape[2]
    gates = biases.new_empty(len(weights), num_gates, length, batch_size, hidden_size)
    for s, weight, bias, values in zip(states, weights, biases.unbind(), gates, strict=True):
        u = _factor(s, state_mask, num_gates, weight.dtype)  # (G, T*B, H)
        offset = bias.view(num_gates, 1, hidden_size).expand(u.shape)
        add_product(offset, u, _by_gate(weight, hidden_size).transpose(1, 2), out=values.flatten(1, 2))
    gates[0] += projected.unflatten(-1, (num_gates, -1)).permute(2, 0, 1, 3)
    _ACTIVATION_INTO[activation](gates[:, 0], gates[:, 0])
    gates[:, 1:].sigmoid_()
    return gates


def _factor(s: Tensor, state_mask: Tensor | None, num_gates: int, dtype: torch.dtype) -> Tensor:
    """What the gates see of the states s (T, B, H), as a product's factor (G, T*B, H)."""
    u = s.unsqueeze(0) if state_mask is None else s * state_mask.unsqueeze(1)  # (1 or M, T, B, H)
    return u.to(dtype).flatten(1, 2).expand(num_gates, -1, -1)


def window_backward(
    d_outputs: Tensor,
    state: Tensor,
    outputs: Tensor,
    inner: Tensor,
    gates: Tensor | None,
    projected: Tensor | None,
    biases: Tensor | None,
    weights: Sequence[Tensor],
    state_mask: Tensor | None,
    update_mask: Tensor | None,
    activation: str,
) -> tuple[Tensor, ...]:
    """Gradients of projected, state, biases and of every recurrent weight.

    `outputs`, `gates` and `inner` are what `window_forward` gave; without gates they are computed again, from
    `projected` and `biases`.
    """
    before = torch.cat((state.unsqueeze(0), outputs[:-1]))  # (T, B, H)
    states = (before, *inner.unbind())  # per micro-step (T, B, H): where it starts from

    def gates_of(now: slice) -> Tensor:
        """(L, G, slice, B, H)"""
        if gates is not None:
            return gates[:, :, now]
        assert projected is not None
        assert biases is not None
        return _gates(projected[now], [s[now] for s in states], weights, biases, state_mask, activation)

    (length, batch_size, hidden_size), depth, width = d_outputs.shape, len(weights), len(weights[0])
    d_projected = d_outputs.new_empty(length, batch_size, width)
    d_biases = d_outputs.new_zeros(depth, width)
    d_weights = [d_outputs.new_empty(weight.shape) for weight in weights]  # (G*H, H) each
    d_state = d_outputs.new_zeros(batch_size, hidden_size)

    num_slices = max(1, math.ceil(length * batch_size / _BACKWARD_ROWS))  # the batch may be empty
    slice_length = math.ceil(length / num_slices)
    for start in reversed(range(0, length, slice_length)):
        now = slice(start, start + slice_length)
        gates_now, states_now = gates_of(now), [s[now] for s in states]
        d_gates = _pointwise_factors(states_now, gates_now, update_mask, activation)  # (L, G, slice, B, H)
        _through_time(d_outputs[now], d_state, d_gates, gates_now, weights, state_mask)
        d_projected[now] = d_gates[0].permute(1, 2, 0, 3).flatten(2)
        d_biases += d_gates.sum(dim=(2, 3)).flatten(1)
        is_first = start + slice_length >= length
        for d_weight, s, d_z in zip(d_weights, states_now, d_gates, strict=True):
            add_weight_gradient(d_weight, s, d_z, state_mask, weights[0].dtype, beta=0 if is_first else 1)
    return d_projected, d_state, d_biases, *d_weights


def _pointwise_factors(states: Sequence[Tensor], gates: Tensor, update_mask: Tensor | None, activation: str) -> Tensor:
    """(L, G, T, B, H): the gradient of a micro-step's gates is the gradient of the state after it times this factor."""
    factors = torch.empty_like(gates)
    for s, values, out in zip(states, gates, factors, strict=True):  # of one micro-step, (T, B, H) and (G, T, B, H)
        h, t, *c = values.unbind()  # (T, B, H) each
        out_h, out_t, *out_c = out.unbind()
        _SCALE_BY_SLOPE[activation](t, h, out_h)
        if update_mask is not None:
            out_h *= update_mask
            h = h * update_mask
        if c:
            _SCALE_BY_SLOPE["sigmoid"](h, t, out_t)
            _SCALE_BY_SLOPE["sigmoid"](s, c[0], out_c[0])
        else:  # c = 1 - t depends on t as well
            _SCALE_BY_SLOPE["sigmoid"](h - s, t, out_t)
    return factors


def _through_time(
    d_outputs: Tensor,
    d_state: Tensor,
    d_gates: Tensor,
    gates: Tensor,
    weights: Sequence[Tensor],
    state_mask: Tensor | None,
) -> None:
    """The sequential part of the backward, in place.

    `d_state` (B, H) goes from after the time steps to before them; `d_gates` (L, G, T, B, H) from the pointwise factors
    to the gradients of the gates' arguments.
    """
    num_gates, hidden_size = gates.shape[1], d_state.shape[1]
    d_u = d_state.new_empty(num_gates, *d_state.shape)  # scratch: gradient of what each gate sees of the state
    masks = [None] * num_gates if state_mask is None else state_mask.expand(d_u.shape).unbind()  # per gate (B, H)

    weights_of_gates = [_by_gate(weight, hidden_size) for weight in weights]  # [micro_step] (G, H, H)
    d_z_views = [d_z.unbind(1) for d_z in d_gates]  # [micro_step][time] (G, B, H)
    last_gates = [values[-1].unbind() for values in gates]  # [micro_step][time] (B, H): c, or t where coupled
    d_u_of_gates = d_u.unbind()  # per gate (B, H)

    for time, d_output in reversed(list(enumerate(d_outputs.unbind()))):
        d_state += d_output
        for micro_step in reversed(range(len(weights))):
            d_z = d_z_views[micro_step][time].mul_(d_state)
            if num_gates == 2:
                d_state.addcmul_(d_state, last_gates[micro_step][time], value=-1)  # the carry path: times 1 - t
            else:
                d_state.mul_(last_gates[micro_step][time])
            product(d_z.to(weights[0].dtype), weights_of_gates[micro_step], out=d_u)
            for d_u_of_gate, mask in zip(d_u_of_gates, masks, strict=True):
                if mask is None:
                    d_state += d_u_of_gate
                else:
                    d_state.addcmul_(d_u_of_gate, mask)


def add_weight_gradient(
    d_weight: Tensor, s: Tensor, d_z: Tensor, state_mask: Tensor | None, dtype: torch.dtype, beta: int
) -> None:
    """d_weight (G*H, H) = beta * d_weight + the gradient from the states s (T, B, H) and d_z (G, T, B, H).

    The factors are rounded to `dtype`; `beta` is 0 or 1.
    """
    d_weight_of_gates = _by_gate(d_weight, s.shape[2])  # (G, H, H)
    d_z_factor = d_z.to(dtype).flatten(1, 2).transpose(1, 2)  # (G, H, T*B)
    u = _factor(s, state_mask, len(d_z), dtype)  # (G, T*B, H)
    if dtype == d_weight.dtype:
        d_weight_of_gates.baddbmm_(d_z_factor, u, beta=beta)
    elif beta == 0:
        product(d_z_factor, u, out=d_weight_of_gates)
    else:
        d_weight_of_gates += product(d_z_factor, u, out=torch.empty_like(d_weight_of_gates))
