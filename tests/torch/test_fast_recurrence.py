"""The fast recurrence against the plain one, and both against finite differences."""

from __future__ import annotations

import itertools
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from rhn_torch import fast_kernels, fast_recurrence, plain_recurrence

INPUT_SIZES = [
    {"depth": depth, "length": length, "batch_size": batch_size, "mask": mask}
    for depth, length, batch_size, mask in itertools.product((1, 2, 3, 10), (1, 2, 5), (1, 3), (None, 1, "gates"))
]
# Measured over the grid: largest difference 1.4e-14 in float64; another order of summation is all that differs.
TOLERANCE = {"rtol": 0.0, "atol": 1e-13}


class Inputs(NamedTuple):
    projected: Tensor  # (T, B, G*H)
    state: Tensor  # (B, H)
    weights: list[Tensor]  # L of (G*H, H)
    biases: Tensor  # (L, G*H)
    mask: Tensor | None  # (M, B, H)


def make_inputs(
    depth: int = 2,
    length: int = 3,
    batch_size: int = 2,
    mask: int | str | None = 1,
    num_gates: int = 2,
    hidden: int = 4,
) -> Inputs:
    generator = torch.Generator().manual_seed(depth + 10 * length)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()

    width = num_gates * hidden
    num_masks = num_gates if mask == "gates" else mask
    keep = None if num_masks is None else torch.rand(num_masks, batch_size, hidden, generator=generator) < 0.7
    return Inputs(
        normal(length, batch_size, width),
        normal(batch_size, hidden),
        [normal(width, hidden, scale=0.5) for _ in range(depth)],
        normal(depth, width),
        None if keep is None else keep.double() / 0.7,
    )


def outputs_and_gradients(recurrence, inputs: Inputs, activation: str) -> list[Tensor]:
    """Outputs, and gradients of a random linear function of them."""
    outputs = recurrence(*inputs, activation)
    cotangent = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0), dtype=outputs.dtype)
    wanted = [inputs.projected, inputs.state, inputs.biases, *inputs.weights]
    return [outputs, *torch.autograd.grad(outputs, wanted, cotangent)]


def assert_fast_equals_plain(inputs: Inputs, activation: str) -> None:
    fast = outputs_and_gradients(fast_recurrence, inputs, activation)
    plain = outputs_and_gradients(plain_recurrence, inputs, activation)
    for actual, expected in zip(fast, plain, strict=True):
        torch.testing.assert_close(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("sizes", INPUT_SIZES, ids=str)
def test_fast_equals_plain(sizes):
    assert_fast_equals_plain(make_inputs(**sizes), "tanh")


@pytest.mark.parametrize("num_gates", [2, 3])
@pytest.mark.parametrize("mask", [None, 1, "gates"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_fast_equals_plain_for_every_kind_of_gate(num_gates, mask, activation):
    assert_fast_equals_plain(make_inputs(num_gates=num_gates, mask=mask), activation)


@pytest.mark.parametrize("rows", [1, 4, 5])
def test_backward_in_slices_of_time_equals_plain(monkeypatch, rows):
    monkeypatch.setattr(fast_kernels, "_BACKWARD_ROWS", rows)  # of the 14 that there are: also uneven slices
    assert_fast_equals_plain(make_inputs(length=7, mask="gates"), "tanh")


@pytest.mark.parametrize("rows", [4, 1024])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("num_gates", [2, 3])
@pytest.mark.parametrize("mask", [None, 1, "gates"])
def test_recomputed_gates_are_the_same(monkeypatch, rows, depth, num_gates, mask):
    monkeypatch.setattr(fast_kernels, "_BACKWARD_ROWS", rows)  # of the 14 that there are
    inputs = make_inputs(depth=depth, length=7, num_gates=num_gates, mask=mask)
    fast = outputs_and_gradients(fast_recurrence, inputs, "tanh")
    recomputed = outputs_and_gradients(partial(fast_recurrence, recompute=True), inputs, "tanh")
    assert torch.equal(recomputed[0], fast[0])
    for actual, expected in zip(recomputed[1:], fast[1:], strict=True):
        torch.testing.assert_close(actual, expected, **TOLERANCE)  # measured: 9e-16


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("num_gates", [2, 3])
@pytest.mark.parametrize("mask", [None, 1, "gates"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_fast_equals_plain_with_an_update_mask(monkeypatch, recompute, num_gates, mask, activation):
    monkeypatch.setattr(fast_kernels, "_BACKWARD_ROWS", 4)
    inputs = make_inputs(num_gates=num_gates, mask=mask)
    update_mask = torch.tensor([[0.0, 2.0, 2.0, 0.0], [2.0, 2.0, 0.0, 2.0]], dtype=torch.float64)
    fast = outputs_and_gradients(
        partial(fast_recurrence, recompute=recompute, update_mask=update_mask), inputs, activation
    )
    plain = outputs_and_gradients(partial(plain_recurrence, update_mask=update_mask), inputs, activation)
    without = outputs_and_gradients(plain_recurrence, inputs, activation)
    assert not torch.allclose(plain[0], without[0])
    for actual, expected in zip(fast, plain, strict=True):
        torch.testing.assert_close(actual, expected, **TOLERANCE)


def test_fast_without_gradients_equals_plain():
    inputs = make_inputs(length=5, depth=3, mask="gates", num_gates=3)
    with torch.no_grad():
        fast, plain = fast_recurrence(*inputs), plain_recurrence(*inputs)
    torch.testing.assert_close(fast, plain, **TOLERANCE)


@pytest.mark.parametrize("num_gates", [2, 3])
@pytest.mark.parametrize("mask", [None, 1, "gates"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
@pytest.mark.parametrize("recompute", [False, True])
def test_fast_passes_gradcheck(num_gates, mask, activation, recompute):
    inputs = make_inputs(num_gates=num_gates, mask=mask, hidden=3)

    def of_tensors(projected, state, biases, *weights):
        return fast_recurrence(projected, state, weights, biases, inputs.mask, activation, recompute=recompute)

    torch.autograd.gradcheck(of_tensors, (inputs.projected, inputs.state, inputs.biases, *inputs.weights))


@pytest.mark.parametrize("num_gates", [2, 3])
@pytest.mark.parametrize("mask", [None, 1, "gates"])
def test_plain_passes_gradgradcheck(num_gates, mask):
    inputs = make_inputs(num_gates=num_gates, mask=mask, hidden=2)

    def of_tensors(projected, state, biases, *weights):
        return plain_recurrence(projected, state, weights, biases, inputs.mask)

    tensors = (inputs.projected, inputs.state, inputs.biases, *inputs.weights)
    torch.autograd.gradcheck(of_tensors, tensors)
    torch.autograd.gradgradcheck(of_tensors, tensors)


def test_second_derivative_of_fast_names_the_way_out():
    inputs = make_inputs()
    loss = fast_recurrence(*inputs).square().sum()
    with pytest.raises(RuntimeError, match="use plain_recurrence"):
        torch.autograd.grad(loss, inputs.state, create_graph=True)


def test_forward_derivative_of_fast_names_the_way_out():
    inputs = make_inputs()
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match="use plain_recurrence"):
        fast_recurrence(torch.autograd.forward_ad.make_dual(inputs.projected, inputs.projected), *inputs[1:])


def test_fast_refuses_to_differentiate_the_mask():
    inputs = make_inputs()
    with pytest.raises(ValueError, match="use plain_recurrence"):
        fast_recurrence(*inputs[:4], inputs.mask.requires_grad_())
    with pytest.raises(ValueError, match="update_mask requires a gradient"):
        fast_recurrence(*inputs[:4], update_mask=torch.ones(2, 4).requires_grad_())


def test_backward_may_run_twice():
    inputs = make_inputs()
    outputs = fast_recurrence(*inputs)
    first = torch.autograd.grad(outputs.sum(), inputs.state, retain_graph=True)
    second = torch.autograd.grad(outputs.sum(), inputs.state)
    assert torch.equal(first[0], second[0])


@pytest.mark.parametrize("recurrence", [fast_recurrence, partial(fast_recurrence, recompute=True), plain_recurrence])
def test_outputs_may_be_changed_in_place(recurrence):
    """As those of `nn.GRU`: by `nn.ReLU(inplace=True)` and the like."""
    inputs = make_inputs()
    gradients = []
    for relu in (torch.relu, torch.relu_):
        gradients.append(torch.autograd.grad(relu(recurrence(*inputs)).square().sum(), inputs.weights))
    assert all(torch.equal(copied, in_place) for copied, in_place in zip(*gradients, strict=True))


@pytest.mark.parametrize("recurrence", [fast_recurrence, partial(fast_recurrence, recompute=True), plain_recurrence])
def test_an_empty_batch(recurrence):
    inputs = make_inputs(batch_size=0)
    outputs, *gradients = outputs_and_gradients(recurrence, inputs, "tanh")
    assert outputs.shape == (3, 0, 4)
    assert not any(gradient.any() for gradient in gradients)
