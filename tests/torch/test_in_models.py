"""RHN in other people's models: hooks, pruning, parametrizations, `torch.func`."""

from __future__ import annotations

import pytest
import torch
from layers_torch import B, H, T, X, make_layer
from torch import nn
from torch.nn.utils import prune

from rhn_torch import RHNCell


@pytest.mark.parametrize("options", [{"num_layers": 2}, {"bidirectional": True}], ids=str)
def test_hooks_on_cells_fire(options):
    layer, seen = make_layer(**options), []
    for cell in layer.modules():
        if isinstance(cell, RHNCell):
            cell.register_forward_hook(lambda cell, arguments, output: seen.append(output.shape))
    layer(X)
    assert seen == [(T, B, H)] * 2


def test_pruning():
    layer = make_layer()
    prune.l1_unstructured(layer.cells[0], "input_weight", amount=0.3)
    before = layer(X)[0]
    layer.cells[0].input_weight_orig.data.mul_(100)
    assert not torch.equal(layer(X)[0], before)
    for _ in range(2):
        layer(X)[0].sum().backward()


@pytest.mark.parametrize(
    "parametrization", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.orthogonal]
)
def test_parametrizations(parametrization):
    layer = make_layer()
    parametrization(layer.cells[0], "input_weight")
    for _ in range(2):
        layer(X)[0].sum().backward()


@pytest.mark.parametrize("recurrence", ["fast", "recompute", "plain"])
def test_torch_func(recurrence):
    layer = make_layer(num_layers=2, recurrence=recurrence)
    parameters = dict(layer.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(layer, parameters, (x,))[0].square().sum()

    expected = torch.autograd.grad(loss(parameters, X), list(parameters.values()))
    for actual, gradient in zip(torch.func.grad(loss)(parameters, X).values(), expected, strict=True):
        torch.testing.assert_close(actual, gradient, rtol=0, atol=1e-12)
    rows = X.transpose(0, 1).unsqueeze(2)  # (B, T, 1, E)
    of_rows = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, rows)
    for actual, gradient in zip(of_rows.values(), expected, strict=True):
        torch.testing.assert_close(actual.sum(0), gradient, rtol=0, atol=1e-12)
    _, derivative = torch.func.jvp(lambda x: loss(parameters, x), (X,), (X,))
    d_x = torch.func.grad(loss, argnums=1)(parameters, X)
    torch.testing.assert_close(derivative, (d_x * X).sum(), rtol=1e-12, atol=0)
