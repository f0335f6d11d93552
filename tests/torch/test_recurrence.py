"""The recurrence that is written for reading: its pieces in numbers, and how they make up a window."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rhn_torch import plain_recurrence
from rhn_torch.recurrence import masked_linear, micro_step, time_step

H = 3


def random(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def test_a_micro_step_in_numbers():
    """One unit, by hand: h = tanh(0.5), t = sigmoid(1), c = 1 - t or sigmoid(-1)."""
    s, z = torch.tensor([[0.25]], dtype=torch.float64), torch.tensor([[0.5, 1.0, -1.0]], dtype=torch.float64)
    h, t, c = np.tanh(0.5), 1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(1.0))
    assert micro_step(s, z, torch.tanh).item() == pytest.approx(h * t + 0.25 * c, abs=1e-15)
    assert micro_step(s, z[:, :2], torch.tanh).item() == pytest.approx(h * t + 0.25 * (1 - t), abs=1e-15)


def test_a_window_is_its_time_steps():
    projected, state, biases = random(4, 2, 2 * H), random(2, H), random(2, 2 * H)
    weights, mask = [random(2 * H, H), random(2 * H, H)], random(2, 2, H)
    outputs = plain_recurrence(projected, state, weights, biases, mask, "relu")
    for projected_now, output in zip(projected, outputs, strict=True):
        state = time_step(state, projected_now, weights, biases, mask, "relu")
        assert torch.equal(output, state)


@pytest.mark.parametrize("num_masks", [1, 2])
def test_masked_linear_is_one_product_per_gate(num_masks):
    x, weight, mask = random(5, 2, H), random(2 * H, H), random(num_masks, 2, H)
    of_gates = [F.linear(x * mask[gate % num_masks], weight[gate * H : (gate + 1) * H]) for gate in range(2)]
    torch.testing.assert_close(masked_linear(x, weight, mask), torch.cat(of_gates, dim=-1), rtol=0, atol=1e-14)
    assert torch.equal(masked_linear(x, weight, None), F.linear(x, weight))
