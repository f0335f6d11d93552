"""One RHN layer's recurrence over a window (Zilly et al., arXiv 1607.03474, equations 6 to 9).

Both functions take the input projection of all time steps and compute the same result. `fast_recurrence` has a
hand-written backward; `plain_recurrence` leaves it to autograd, and so has derivatives of any order.

Shapes: T time, B batch, H hidden, L micro-steps, G gates (2: h, t with c = 1 - t; 3: h, t, c), M masks (1 or G).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rhn_torch.precision import addmm, factor_dtype

_ACTIVATION: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
}
_ACTIVATION_IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh_,
    "sigmoid": torch.sigmoid_,
    "relu": torch.relu_,
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


def fast_recurrence(
    projected: Tensor,
    state: Tensor,
    recurrent_weights: Sequence[Tensor],
    biases: Tensor,
    state_mask: Tensor | None = None,
    activation: str = "tanh",
    recompute: bool = False,
) -> Tensor:
    """States after every time step of a window, with a hand-written backward.

    The backward computes all pointwise factors in bulk, then per micro-step one elementwise update and one matrix
    product, then each weight's gradient as one matrix product over time and batch.

    Under `torch.autocast` the factors of the products are rounded; states, gates and gradients remain as they are.

    Args:
        projected: (T, B, G*H) masked input times input weight.
        state: (B, H) before the window.
        recurrent_weights: L matrices (G*H, H), one block of H rows per gate, as `nn.LSTM` stacks them.
        biases: (L, G*H).
        state_mask: (M, B, H) constant over time and micro-steps, or None. Not differentiable here.
        activation: of the candidate h; "tanh", "sigmoid" or "relu".
        recompute: keep `projected` and the states for the backward but no gates, and compute these anew there, one
            matrix product per level: exact, in less memory and a little more time.

    Returns:
        (T, B, H).

    Raises:
        ValueError: `state_mask` requires a gradient.
        RuntimeError: at backward, if a second derivative is asked for.
    """
    if state_mask is not None and state_mask.requires_grad:
        raise ValueError("state_mask requires a gradient, which fast_recurrence does not give: use plain_recurrence")
    dtype = factor_dtype(biases)
    if dtype != biases.dtype:
        state = state.to(biases.dtype)  # under autocast it may be another layer's product
    inputs = (projected, state, biases, *recurrent_weights)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        return _FastRecurrence.apply(activation, recompute, dtype, state_mask, *inputs)
    weights = [weight.to(dtype) for weight in recurrent_weights]
    return _forward(projected, state, weights, biases, state_mask, activation, keep=())[0]


def plain_recurrence(
    projected: Tensor,
    state: Tensor,
    recurrent_weights: Sequence[Tensor],
    biases: Tensor,
    state_mask: Tensor | None = None,
    activation: str = "tanh",
) -> Tensor:
    """As `fast_recurrence`, differentiated by autograd: any order, any argument, any transform; slower."""
    num_gates = biases.shape[1] // state.shape[1]
    s = state  # (B, H)
    outputs = []
    for projected_now in projected.unbind():  # (B, G*H)
        for level, (weight, bias) in enumerate(zip(recurrent_weights, biases.unbind(), strict=True)):
            z = masked_linear(s, weight, state_mask) + bias  # (B, G*H)
            if level == 0:
                z = z + projected_now
            z_h, z_t, *z_c = z.chunk(num_gates, dim=-1)  # (B, H) each
            h = _ACTIVATION[activation](z_h)
            t = torch.sigmoid(z_t)
            c = torch.sigmoid(z_c[0]) if z_c else 1 - t
            s = h * t + s * c  # (B, H): the carried s is never masked
        outputs.append(s)
    return torch.stack(outputs)  # (T, B, H)


def masked_linear(x: Tensor, weight: Tensor, mask: Tensor | None) -> Tensor:
    """(x * mask) @ weight.T, every gate with its own mask.

    Args:
        x: (..., B, features).
        weight: (G*H, features).
        mask: (M, B, features), M = 1 if the gates share it, else G; or None.

    Returns:
        (..., B, G*H).
    """
    if mask is None:
        return F.linear(x, weight)
    if len(mask) == 1:
        return F.linear(x * mask[0], weight)
    blocks = weight.chunk(len(mask))  # per gate (H, features)
    return torch.cat([F.linear(x * m, block) for m, block in zip(mask, blocks, strict=True)], dim=-1)


# ----------------------------------------------------------------------------------------------------------------------
# The fast path. Lists of views are made before the loops, and everything inside them works in place: at small sizes
# the time goes into creating tensors, not into arithmetic.
# ----------------------------------------------------------------------------------------------------------------------


class _FastRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        activation: str,
        recompute: bool,
        dtype_of_factors: torch.dtype,
        state_mask: Tensor | None,
        projected: Tensor,
        state: Tensor,
        biases: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        weights = [weight.to(dtype_of_factors) for weight in parameters]
        keep = ("states",) if recompute else ("states", "gates")
        outputs, gates, inner = _forward(projected, state, weights, biases, state_mask, activation, keep)
        ctx.activation = activation
        gates_or_arguments = (None, projected, biases) if recompute else (gates, None, None)
        ctx.save_for_backward(state_mask, state, outputs, inner, *gates_or_arguments, *weights)
        return outputs

    @staticmethod
    def backward(ctx: Any, d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("fast_recurrence has no second derivative: use plain_recurrence (recurrence='plain')")
        state_mask, state, outputs, inner, gates, projected, biases, *weights = ctx.saved_tensors
        before = torch.cat((state.unsqueeze(0), outputs[:-1]))  # (T, B, H)
        states = (before, *inner.unbind())  # per level (T, B, H): the state that it starts from

        def gates_of(now: slice) -> Tensor:
            if gates is not None:
                return gates[:, now]
            return _gates(projected[now], [s[now] for s in states], weights, biases, state_mask, ctx.activation)

        return (None,) * 4 + _backward(d_outputs, states, gates_of, weights, state_mask, ctx.activation)


def _forward(
    projected: Tensor,
    state: Tensor,
    weights: Sequence[Tensor],
    biases: Tensor,
    state_mask: Tensor | None,
    activation: str,
    keep: Sequence[str],
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (T, B, H), gate values (L, T, B, G*H) and the states between micro-steps (L-1, T, B, H).

    The last two are scratch memory of a single micro-step unless "gates" and "states" are in `keep`. Weights are of the
    dtype to which factors are rounded, which may be lower than that of all else.
    """
    (length, batch_size, width), hidden_size, depth = projected.shape, state.shape[1], len(weights)
    num_gates = width // hidden_size
    masks = [None] if state_mask is None else state_mask.unbind()  # per block of gates (B, H)
    activate = _ACTIVATION_IN_PLACE[activation]
    rounded = weights[0].dtype != state.dtype

    outputs = state.new_empty(length, batch_size, hidden_size)
    if "gates" in keep:
        gates = state.new_empty(depth, length, batch_size, width)
    else:
        gates = state.new_empty(batch_size, width).expand(depth, length, -1, -1)
    if "states" in keep:
        inner = state.new_empty(depth - 1, length, batch_size, hidden_size)
    else:
        inner = state.new_empty(batch_size, hidden_size).expand(depth - 1, length, -1, -1)
    masked = weights[0].new_empty(batch_size, hidden_size)  # scratch: the product's factor
    product = weights[0].new_empty(batch_size, width // len(masks))  # scratch, (B, K), if rounded

    # Gates that share a mask form a block of width K, which one matrix product projects.
    blocks = len(masks)
    weight_blocks = [weight.t().chunk(blocks, dim=1) for weight in weights]  # [level][block] (H, K)
    bias_blocks = [bias.chunk(blocks) for bias in biases]  # [level][block] (K,)
    first_blocks = [block.unbind() for block in (projected + biases[0]).chunk(blocks, dim=-1)]  # [block][time] (B, K)
    z_blocks = [[block.unbind() for block in z.chunk(blocks, dim=-1)] for z in gates]  # [level][block][time] (B, K)
    gate_views = [[g.unbind() for g in z.chunk(num_gates, dim=-1)] for z in gates]  # [level][gate][time] (B, H)
    state_views = [*(s.unbind() for s in inner), outputs.unbind()]  # [level][time] (B, H): at the micro-step's end

    s = state
    for time in range(length):
        for level in range(depth):
            for block, mask in enumerate(masks):
                u = s if mask is None else torch.mul(s, mask, out=masked)
                offset = bias_blocks[level][block] if level else first_blocks[block][time]
                weight, z = weight_blocks[level][block], z_blocks[level][block][time]
                if rounded:
                    u = masked.copy_(u) if mask is None else u
                    torch.add(offset, torch.mm(u, weight, out=product), out=z)
                else:
                    torch.addmm(offset, u, weight, out=z)
            h, t = activate(gate_views[level][0][time]), torch.sigmoid_(gate_views[level][1][time])
            s_next = state_views[level][time]
            if num_gates == 2:
                torch.lerp(s, h, t, out=s_next)  # s + t * (h - s)
            else:
                c = torch.sigmoid_(gate_views[level][2][time])
                torch.mul(s, c, out=s_next).addcmul_(h, t)
            s = s_next
    return outputs, gates, inner


def _gates(
    projected: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: Tensor,
    state_mask: Tensor | None,
    activation: str,
) -> Tensor:
    """The gate values (L, T, B, G*H) of `_forward` again, from the states (T, B, H) that each level starts from."""
    hidden_size = states[0].shape[-1]
    masks = [None] if state_mask is None else state_mask.unbind()  # per block of gates (B, H)
    blocks = len(masks)
    gates = biases.new_empty(len(weights), *projected.shape)
    for s, weight, bias, z in zip(states, weights, biases.unbind(), gates, strict=True):
        of_blocks = zip(masks, weight.chunk(blocks), bias.chunk(blocks), z.chunk(blocks, dim=-1), strict=True)
        for mask, weight_block, bias_block, z_block in of_blocks:  # (B, H), (K, H), (K,), (T, B, K)
            u = _factor(s, mask, weight.dtype)  # (T*B, H)
            addmm(bias_block, u, weight_block.t(), out=z_block.flatten(0, 1))
    gates[0] += projected
    _ACTIVATION_IN_PLACE[activation](gates[..., :hidden_size])
    torch.sigmoid_(gates[..., hidden_size:])
    return gates


def _factor(s: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What the gates see of the states s (T, B, H), as a product's factor (T*B, H)."""
    return (s if mask is None else s * mask).to(dtype).flatten(0, 1)


def _backward(
    d_outputs: Tensor,
    states: Sequence[Tensor],
    gates_of: Callable[[slice], Tensor],
    weights: Sequence[Tensor],
    state_mask: Tensor | None,
    activation: str,
) -> tuple[Tensor, ...]:
    """Gradients of projected, state, biases and of every recurrent weight.

    `states` are per level (T, B, H), the state that each micro-step starts from; `gates_of` gives the gate values
    (L, slice, B, G*H) of a slice of time; the rest as `_forward` has it.
    """
    (length, batch_size, hidden_size), depth, width = d_outputs.shape, len(weights), len(weights[0])
    d_projected = d_outputs.new_empty(length, batch_size, width)
    d_biases = d_outputs.new_zeros(depth, width)
    d_weights = [d_outputs.new_empty(weight.shape) for weight in weights]  # (G*H, H) each
    d_state = d_outputs.new_zeros(batch_size, hidden_size)

    num_slices = math.ceil(length * batch_size / _BACKWARD_ROWS)
    slice_length = math.ceil(length / num_slices)
    for start in reversed(range(0, length, slice_length)):
        now = slice(start, start + slice_length)
        gates_now, states_now = gates_of(now), [s[now] for s in states]
        d_gates = _pointwise_factors(states_now, gates_now, activation)  # (L, slice, B, G*H)
        _through_time(d_outputs[now], d_state, d_gates, gates_now, weights, state_mask)
        d_projected[now] = d_gates[0]
        d_biases += d_gates.sum(dim=(1, 2))
        is_first = start + slice_length >= length
        for d_weight, s, d_z in zip(d_weights, states_now, d_gates, strict=True):
            add_weight_gradient(d_weight, s, d_z, state_mask, weights[0].dtype, beta=0 if is_first else 1)
    return d_projected, d_state, d_biases, *d_weights


def _pointwise_factors(states: Sequence[Tensor], gates: Tensor, activation: str) -> Tensor:
    """(L, T, B, G*H): what the gradient of the state after a micro-step is multiplied by to give that of its gates."""
    hidden_size = states[0].shape[-1]
    factors = torch.empty_like(gates)
    for s, values, out in zip(states, gates, factors, strict=True):  # of one level, (T, B, H) and (T, B, G*H)
        h, t, *c = values.split(hidden_size, dim=-1)  # (T, B, H) each
        out_h, out_t, *out_c = out.split(hidden_size, dim=-1)
        _SCALE_BY_SLOPE[activation](t, h, out_h)
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

    `d_state` (B, H) goes from after the time steps to before them; `d_gates` (L, T, B, G*H) from the pointwise factors
    to the gradients of the gates' arguments.
    """
    hidden_size = d_state.shape[1]
    num_gates = gates.shape[-1] // hidden_size
    masks = [None] if state_mask is None else state_mask.unbind()  # per block of gates (B, H)
    rounded = weights[0].dtype != d_state.dtype
    product = weights[0].new_empty(d_state.shape)  # (B, H) scratch
    factor = weights[0].new_empty(len(d_state), gates.shape[-1] // len(masks))  # (B, K) scratch, if rounded

    blocks = len(masks)
    weight_blocks = [weight.chunk(blocks) for weight in weights]  # [level][block] (K, H)
    d_z_blocks = [[block.unbind() for block in d_z.chunk(blocks, dim=-1)] for d_z in d_gates]  # [level][block][time]
    d_z_by_gate = [d_z.unbind() for d_z in d_gates.unflatten(-1, (num_gates, -1))]  # [level][time] (B, G, H)
    last_gates = [z[..., -hidden_size:].unbind() for z in gates]  # [level][time] (B, H): c, or t where coupled
    d_state_of_each_gate = d_state.unsqueeze(1)  # (B, 1, H)

    for time, d_output in reversed(list(enumerate(d_outputs.unbind()))):
        d_state += d_output
        for level in reversed(range(len(weights))):
            d_z_by_gate[level][time].mul_(d_state_of_each_gate)
            if num_gates == 2:
                d_state.addcmul_(d_state, last_gates[level][time], value=-1)  # the carry path: times 1 - t
            else:
                d_state.mul_(last_gates[level][time])
            for block, mask in enumerate(masks):
                d_z, weight = d_z_blocks[level][block][time], weight_blocks[level][block]
                if rounded:
                    d_z = factor.copy_(d_z)
                if mask is not None:
                    d_state.addcmul_(torch.mm(d_z, weight, out=product), mask)
                elif rounded:
                    d_state += torch.mm(d_z, weight, out=product)
                else:
                    d_state.addmm_(d_z, weight)


def add_weight_gradient(
    d_weight: Tensor, s: Tensor, d_z: Tensor, state_mask: Tensor | None, dtype: torch.dtype, beta: int
) -> None:
    """d_weight (G*H, H) = beta * d_weight + the gradient from the states s (T, B, H) and d_z (T, B, G*H).

    The factors are rounded to `dtype`; `beta` is 0 or 1.
    """
    masks = [None] if state_mask is None else state_mask.unbind()  # per block of gates (B, H)
    blocks = len(masks)
    for mask, rows, d_z_block in zip(masks, d_weight.chunk(blocks), d_z.chunk(blocks, dim=-1), strict=True):
        d_z_factor, u = d_z_block.to(dtype).flatten(0, 1), _factor(s, mask, dtype)  # (T*B, K), (T*B, H)
        if dtype == rows.dtype:
            rows.addmm_(d_z_factor.t(), u, beta=beta)
        elif beta == 0:
            rows.copy_(torch.mm(d_z_factor.t(), u))
        else:
            rows += torch.mm(d_z_factor.t(), u)
