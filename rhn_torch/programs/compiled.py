"""The fast recurrence as one operation that `torch.compile` does not trace.

If traced, the loops over time and micro-steps would become thousands of operations. Compiling them would take minutes,
again for every length. Here the compiler sees only two operations, the forward and the backward pass of a window, and
the shapes of their results.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rhn_torch.fast_kernels import window_backward, window_forward


def compiled_recurrence(
    projected: Tensor,
    state: Tensor,
    recurrent_weights: Sequence[Tensor],
    biases: Tensor,
    state_mask: Tensor | None,
    update_mask: Tensor | None,
    activation: str,
    padding: Tensor | None,
    dtype_of_factors: torch.dtype,
    keep: Sequence[str],
) -> Tensor:
    """As `fast_recurrence`; `keep` names what the backward will need, () without a backward."""
    masks = state_mask, update_mask
    arguments = projected, state, list(recurrent_weights), biases, *masks, activation, padding, dtype_of_factors
    outputs, _, _ = _forward(*arguments, "states" in keep, "gates" in keep)
    return outputs.clone()  # the caller may change them in place


@torch.library.custom_op("rhn_torch::window_forward", mutates_args=())
def _forward(
    projected: Tensor,
    state: Tensor,
    parameters: list[Tensor],
    biases: Tensor,
    state_mask: Tensor | None,
    update_mask: Tensor | None,
    activation: str,
    padding: Tensor | None,
    dtype_of_factors: torch.dtype,
    keep_states: bool,
    keep_gates: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, gates and inner states of `window_forward`; the last two are empty where they are not kept."""
    weights = [parameter.to(dtype_of_factors) for parameter in parameters]
    keep = ("states",) * keep_states + ("gates",) * keep_gates
    masks = state_mask, update_mask
    outputs, gates, inner = window_forward(projected, state, weights, biases, *masks, activation, keep, padding)
    return outputs, gates if keep_gates else state.new_empty(0), inner if keep_states else state.new_empty(0)


@_forward.register_fake
def _(projected, state, parameters, biases, *rest):  # type: ignore[no-untyped-def]
    keep_states, keep_gates = rest[-2:]
    (length, batch_size, width), hidden_size, depth = projected.shape, state.shape[1], len(parameters)
    outputs = state.new_empty(length, batch_size, hidden_size)
    gates = state.new_empty(depth, width // hidden_size, length, batch_size, hidden_size)
    inner = state.new_empty(depth - 1, length, batch_size, hidden_size)
    return outputs, gates if keep_gates else state.new_empty(0), inner if keep_states else state.new_empty(0)


@torch.library.custom_op("rhn_torch::window_backward", mutates_args=())
def _backward(
    d_outputs: Tensor,
    state: Tensor,
    outputs: Tensor,
    inner: Tensor,
    gates: Tensor | None,
    projected: Tensor | None,
    biases: Tensor | None,
    parameters: list[Tensor],
    state_mask: Tensor | None,
    update_mask: Tensor | None,
    activation: str,
    dtype_of_factors: torch.dtype,
) -> list[Tensor]:
    """Gradients of projected, state, biases and of every recurrent weight."""
    weights = [parameter.to(dtype_of_factors) for parameter in parameters]
    forward = state, outputs, inner, gates, projected, biases, weights, state_mask, update_mask, activation
    return list(window_backward(d_outputs, *forward))


@_backward.register_fake
def _(d_outputs, state, outputs, inner, gates, projected, biases, parameters, *rest):  # type: ignore[no-untyped-def]
    (length, batch_size, _), (width, _), depth = d_outputs.shape, parameters[0].shape, len(parameters)
    of_inputs = d_outputs.new_empty(length, batch_size, width), torch.empty_like(state)
    return [*of_inputs, d_outputs.new_empty(depth, width), *map(torch.empty_like, parameters)]


def _save(ctx, inputs, output):  # type: ignore[no-untyped-def]
    projected, state, parameters, biases, *masks, activation, _, dtype_of_factors, _, keep_gates = inputs
    outputs, gates, inner = output
    gates_or_arguments = (gates, None, None) if keep_gates else (None, projected, biases)
    ctx.save_for_backward(*masks, state, outputs, inner, *gates_or_arguments, *parameters)
    ctx.options = activation, dtype_of_factors


def _differentiate(ctx, d_outputs, d_gates, d_inner):  # type: ignore[no-untyped-def]
    state_mask, update_mask, state, outputs, inner, gates, projected, biases, *parameters = ctx.saved_tensors
    forward = state, outputs, inner, gates, projected, biases, parameters, state_mask, update_mask, *ctx.options
    d_projected, d_state, d_biases, *d_weights = _backward(d_outputs, *forward)
    return d_projected, d_state, d_weights, d_biases, None, None, None, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)
