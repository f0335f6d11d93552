"""Triton kernels of a micro-step, forward and backward. Shapes as in `rhn_torch.recurrence`.

A program computes one tile, (ROWS, COLUMNS), of the states (B, H). Matrices are contiguous: weights (G*H, H), gates and
similar arrays (B, G*H), masks (M, B, H). H is a multiple of COLUMNS and of SUMMED, the number of terms of a product
that are summed at a time. Pointers are to float32, except for weights: the other factor is rounded to their dtype.
"""

# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl


@triton.jit
def micro_step(
    s_ptr,
    weight_ptr,
    bias_ptr,
    projected_ptr,
    s_next_ptr,
    gates_ptr,
    mask_ptr,
    batch_size,
    hidden_size,
    IS_FIRST: tl.constexpr,
    NUM_GATES: tl.constexpr,
    NUM_MASKS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SUMMED: tl.constexpr,
):
    """State after a micro-step and the values of its gates."""
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    exists = rows < batch_size
    width = NUM_GATES * hidden_size

    z_h = tl.zeros((ROWS, COLUMNS), tl.float32)
    z_t = tl.zeros((ROWS, COLUMNS), tl.float32)
    z_c = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, hidden_size, SUMMED):
        inner = start + tl.arange(0, SUMMED)
        position = rows * hidden_size + inner[None, :]
        s = tl.load(s_ptr + position, mask=exists, other=0.0)  # (ROWS, SUMMED)
        u_h = _masked(s, mask_ptr, position, exists, NUM_MASKS)
        u_t, u_c = u_h, u_h
        if NUM_MASKS > 1:
            next_mask = batch_size * hidden_size
            u_t = _masked(s, mask_ptr, next_mask + position, exists, NUM_MASKS)
            if NUM_GATES == 3:
                u_c = _masked(s, mask_ptr, 2 * next_mask + position, exists, NUM_MASKS)
        weights = weight_ptr + columns * hidden_size + inner[:, None]  # (SUMMED, COLUMNS)
        next_gate = hidden_size * hidden_size
        z_h = _add_product(z_h, u_h, weights, PRECISION)
        z_t = _add_product(z_t, u_t, weights + next_gate, PRECISION)
        if NUM_GATES == 3:
            z_c = _add_product(z_c, u_c, weights + 2 * next_gate, PRECISION)

    position = rows * width + columns
    z_h += tl.load(bias_ptr + columns)
    z_t += tl.load(bias_ptr + hidden_size + columns)
    if IS_FIRST:
        z_h += tl.load(projected_ptr + position, mask=exists, other=0.0)
        z_t += tl.load(projected_ptr + position + hidden_size, mask=exists, other=0.0)
    h = _activate(z_h, ACTIVATION)
    t = tl.sigmoid(z_t)
    c = 1 - t
    tl.store(gates_ptr + position, h, mask=exists)
    tl.store(gates_ptr + position + hidden_size, t, mask=exists)
    if NUM_GATES == 3:
        z_c += tl.load(bias_ptr + 2 * hidden_size + columns)
        if IS_FIRST:
            z_c += tl.load(projected_ptr + position + 2 * hidden_size, mask=exists, other=0.0)
        c = tl.sigmoid(z_c)
        tl.store(gates_ptr + position + 2 * hidden_size, c, mask=exists)
    s = tl.load(s_ptr + rows * hidden_size + columns, mask=exists, other=0.0)
    tl.store(s_next_ptr + rows * hidden_size + columns, h * t + s * c, mask=exists)


@triton.jit
def micro_step_backward(
    d_z_ptr,
    weight_ptr,
    later_gates_ptr,
    d_state_ptr,
    d_output_ptr,
    s_ptr,
    gates_ptr,
    d_gates_ptr,
    mask_ptr,
    batch_size,
    hidden_size,
    ADD_OUTPUT: tl.constexpr,
    BEGIN: tl.constexpr,
    NUM_GATES: tl.constexpr,
    NUM_MASKS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SUMMED: tl.constexpr,
):
    """Carry the gradient of the state back over a micro-step, in place. If BEGIN, also compute the gradient of the
    gates' arguments of the micro-step before it."""
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    exists = rows < batch_size
    width = NUM_GATES * hidden_size
    state_position = rows * hidden_size + columns
    gate_position = rows * width + columns

    # The carry path: times c, which is 1 - t if the gates are coupled.
    d_s = tl.load(d_state_ptr + state_position, mask=exists, other=0.0)
    carry = tl.load(later_gates_ptr + gate_position + (NUM_GATES - 1) * hidden_size, mask=exists, other=0.0)
    if NUM_GATES == 2:
        carry = 1 - carry
    d_s *= carry
    for gate in tl.static_range(NUM_GATES):
        d_u = tl.zeros((ROWS, COLUMNS), tl.float32)
        for start in range(gate * hidden_size, (gate + 1) * hidden_size, SUMMED):
            inner = start + tl.arange(0, SUMMED)
            d_z = tl.load(d_z_ptr + rows * width + inner[None, :], mask=exists, other=0.0)  # (ROWS, SUMMED)
            weights = weight_ptr + inner[:, None] * hidden_size + columns  # (SUMMED, COLUMNS)
            d_u = _add_product(d_u, d_z, weights, PRECISION)
        mask_position = state_position
        if NUM_MASKS > 1:
            mask_position += gate * batch_size * hidden_size
        d_s += _masked(d_u, mask_ptr, mask_position, exists, NUM_MASKS)
    if ADD_OUTPUT:
        d_s += tl.load(d_output_ptr + state_position, mask=exists, other=0.0)
    tl.store(d_state_ptr + state_position, d_s, mask=exists)

    if BEGIN:
        s = tl.load(s_ptr + state_position, mask=exists, other=0.0)
        h = tl.load(gates_ptr + gate_position, mask=exists, other=0.0)
        t = tl.load(gates_ptr + gate_position + hidden_size, mask=exists, other=0.0)
        d_t = h - s
        if NUM_GATES == 3:
            d_t = h
            c = tl.load(gates_ptr + gate_position + 2 * hidden_size, mask=exists, other=0.0)
            tl.store(d_gates_ptr + gate_position + 2 * hidden_size, d_s * s * c * (1 - c), mask=exists)
        tl.store(d_gates_ptr + gate_position, d_s * t * _slope(h, ACTIVATION), mask=exists)
        tl.store(d_gates_ptr + gate_position + hidden_size, d_s * d_t * t * (1 - t), mask=exists)


@triton.jit
def _masked(x, mask_ptr, position, exists, NUM_MASKS: tl.constexpr):
    if NUM_MASKS > 0:
        x *= tl.load(mask_ptr + position, mask=exists, other=0.0)
    return x


@triton.jit
def _add_product(total, factor, weight_ptr, PRECISION: tl.constexpr):
    """total (ROWS, COLUMNS) + factor (ROWS, SUMMED), rounded as the weights are, @ weights (SUMMED, COLUMNS)."""
    weight = tl.load(weight_ptr)
    return tl.dot(factor.to(weight.dtype), weight, total, input_precision=PRECISION)


@triton.jit
def _activate(z, ACTIVATION: tl.constexpr):
    if ACTIVATION == "tanh":
        h = 2 * tl.sigmoid(2 * z) - 1
    elif ACTIVATION == "sigmoid":
        h = tl.sigmoid(z)
    else:
        h = tl.maximum(z, 0.0)
    return h


@triton.jit
def _slope(h, ACTIVATION: tl.constexpr):
    """Derivative of the activation, as a function of its value."""
    if ACTIVATION == "tanh":
        slope = 1 - h * h
    elif ACTIVATION == "sigmoid":
        slope = h * (1 - h)
    else:
        slope = tl.where(h > 0, 1.0, 0.0)
    return slope
