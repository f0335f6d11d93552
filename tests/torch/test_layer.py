"""RHNCell and RHN as their users meet them."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import rhn
from rhn_torch import RHN, RHNCell

T, B, E, H, L = 4, 3, 5, 6, 2


def make_layer(**options) -> RHN:
    torch.manual_seed(0)
    options = {"dtype": torch.float64, "init_scale": 0.8, "transform_bias": -0.5, **options}
    return RHN(E, H, L, **options)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def random_masks(num_layers: int, num_masks: int) -> rhn.VariationalMasks:
    generator = np.random.default_rng(0)
    widths = [E] + [H] * (num_layers - 1)
    return rhn.VariationalMasks(
        input=[generator.integers(0, 2, (num_masks, B, width)) * 2.0 for width in widths],
        state=[generator.integers(0, 2, (num_masks, B, H)) * 2.0 for _ in widths],
    )


# ----------------------------------------------------------------------------------------------------------------------
# What they compute
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recurrence", ["fast", "plain", "recompute"])
@pytest.mark.parametrize("couple_gates", [True, False])
@pytest.mark.parametrize("num_masks", [0, 1, "gates"])
def test_layer_is_its_cells_step_by_step(recurrence, couple_gates, num_masks):
    layer = make_layer(num_layers=2, couple_gates=couple_gates, recurrence=recurrence)
    x, h_0 = random(T, B, E), random(2, B, H)
    gates = 2 if couple_gates else 3
    masks = random_masks(2, gates if num_masks == "gates" else num_masks) if num_masks else None
    output, h_n = layer(x, h_0, masks)
    states = list(h_0)
    for time in range(T):
        below = x[time]
        for i, cell in enumerate(layer.cells):
            cell_masks = () if masks is None else (torch.from_numpy(masks.input[i]), torch.from_numpy(masks.state[i]))
            below = states[i] = cell(below, states[i], *cell_masks)
        torch.testing.assert_close(output[time], below, rtol=0, atol=1e-14)
    torch.testing.assert_close(h_n, torch.stack(states), rtol=0, atol=1e-14)


def test_masks_may_be_tensors():
    layer, masks = make_layer(), random_masks(1, 1)
    as_tensors = masks._replace(
        input=[torch.from_numpy(m) for m in masks.input], state=[torch.from_numpy(m) for m in masks.state]
    )
    assert torch.equal(layer(random(T, B, E), masks=masks)[0], layer(random(T, B, E), masks=as_tensors)[0])


def test_no_initial_state_is_zero():
    layer, x = make_layer(num_layers=2), random(T, B, E)
    assert torch.equal(layer(x)[0], layer(x, torch.zeros(2, B, H, dtype=torch.float64))[0])


def test_two_windows_are_one():
    layer, x = make_layer(num_layers=2), random(T, B, E)
    whole, h_whole = layer(x)
    first, h_n = layer(x[:1])
    second, h_n = layer(x[1:], h_n)
    torch.testing.assert_close(torch.cat((first, second)), whole, rtol=0, atol=1e-14)
    torch.testing.assert_close(h_n, h_whole, rtol=0, atol=1e-14)


def test_batch_first_transposes_input_and_output_only():
    layer, batch_first = make_layer(), make_layer(batch_first=True)
    x, h_0 = random(T, B, E), random(1, B, H)
    output, h_n = layer(x, h_0)
    other_output, other_h_n = batch_first(x.transpose(0, 1), h_0)
    assert torch.equal(other_output.transpose(0, 1), output)
    assert torch.equal(other_h_n, h_n)


@pytest.mark.parametrize("batch_first", [False, True])
def test_one_sequence_needs_no_batch(batch_first):
    layer = make_layer(num_layers=2, batch_first=batch_first)
    x, h_0 = random(T, E), random(2, H)
    output, h_n = layer(x, h_0)
    assert output.shape == (T, H)
    assert h_n.shape == (2, H)
    batched = make_layer(num_layers=2)(x.unsqueeze(1), h_0.unsqueeze(1))
    assert torch.equal(output, batched[0].squeeze(1))
    assert torch.equal(h_n, batched[1].squeeze(1))


def test_layer_inside_a_larger_module_trains():
    torch.manual_seed(0)
    layer, readout = RHN(1, 16, 2), nn.Linear(16, 1)
    x = torch.randint(0, 2, (12, 32, 1)).float()
    parity = x.cumsum(0) % 2
    parameters = [*layer.parameters(), *readout.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    losses = []
    for _ in range(40):
        loss = nn.functional.mse_loss(readout(layer(x)[0]), parity)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


# ----------------------------------------------------------------------------------------------------------------------
# What modules are expected to do
# ----------------------------------------------------------------------------------------------------------------------


def test_parameters_have_the_documented_shapes():
    shapes = {name: tuple(p.shape) for name, p in make_layer(num_layers=2, couple_gates=False).named_parameters()}
    expected = {}
    for layer, width in enumerate((E, H)):
        expected[f"cells.{layer}.input_weight"] = (3 * H, width)
        expected[f"cells.{layer}.bias"] = (L, 3 * H)
        expected |= {f"cells.{layer}.recurrent_weights.{level}": (3 * H, H) for level in range(L)}
    assert shapes == expected


def test_reset_parameters_follows_the_options():
    cell = RHNCell(30, 40, 3, init_scale=0.1, transform_bias=-4.0)
    before = cell.input_weight.clone()
    cell.reset_parameters()
    assert not torch.equal(cell.input_weight, before)
    assert torch.equal(cell.bias[:, 40:], torch.full((3, 40), -4.0))
    for free in (cell.input_weight, *cell.recurrent_weights, cell.bias[:, :40]):
        assert 0.09 < free.abs().max() <= 0.1
        assert abs(free.mean()) < 0.03


def test_state_dict_round_trip():
    layer, other = make_layer(num_layers=2), make_layer(num_layers=2)
    other.reset_parameters()
    x = random(T, B, E)
    assert not torch.equal(layer(x)[0], other(x)[0])
    other.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x)[0], other(x)[0])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_equal_and_independent(duplicate):
    layer, x = make_layer(num_layers=2), random(T, B, E)
    other = duplicate(layer)
    assert torch.equal(layer(x)[0], other(x)[0])
    other.reset_parameters()
    assert not torch.equal(layer(x)[0], other(x)[0])


def test_export_for_a_fixed_window():
    layer, x, h_0 = make_layer(num_layers=2).eval(), random(T, B, E), random(2, B, H)
    program = torch.export.export(layer, (x, h_0))
    for actual, expected in zip(program.module()(x, h_0), layer(x, h_0), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 0.0), (torch.float32, 1e-6), (torch.bfloat16, 0.05)])
def test_dtype_argument(dtype, tolerance):
    """Measured: float32 differs by 8e-8 from float64, bfloat16 by 0.004."""
    expected = make_layer()
    layer = make_layer(dtype=dtype)
    layer.load_state_dict(expected.state_dict())
    x = random(T, B, E).requires_grad_()
    output, h_n = layer(x.to(dtype))
    assert output.dtype == h_n.dtype == dtype
    torch.testing.assert_close(output.double(), expected(x)[0], rtol=0, atol=tolerance)
    output.sum().backward()
    assert all(p.grad.dtype == dtype and p.grad.isfinite().all() for p in layer.parameters())


def test_device_argument():
    layer = RHN(E, H, L, num_layers=2, device="meta")
    assert {p.device.type for p in layer.parameters()} == {"meta"}


def test_repr_tells_what_is_not_default():
    text = repr(RHN(E, H, L, num_layers=2, batch_first=True, couple_gates=False, activation="relu", recurrence="plain"))
    assert "5, 6, recurrence_depth=2, num_layers=2, batch_first=True, recurrence='plain'\n" in text
    assert "5, 6, recurrence_depth=2, couple_gates=False, activation='relu'\n" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "hidden_size=0 is not accepted"),
        ({"recurrence_depth": 0}, "recurrence_depth=0 is not accepted"),
        ({"num_layers": 0}, "num_layers=0 is not accepted"),
        ({"activation": "gelu"}, "activation='gelu' is not accepted: expected one of tanh, sigmoid, relu"),
        ({"init_scale": -1}, "init_scale=-1 is not accepted: expected a number of at least 0"),
        ({"recurrence": "slow"}, "recurrence='slow' is not accepted: expected one of fast, plain, recompute"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        RHN(**{"input_size": E, "hidden_size": H, "recurrence_depth": L, **options})


@pytest.mark.parametrize(
    ("x_shape", "h_shape", "message"),
    [
        (
            (T, B, E + 1),
            None,
            r"input of shape \(4, 3, 6\) is not accepted: expected 2 or 3 axes with a last axis of 5",
        ),
        ((E,), None, r"input of shape \(5,\)"),
        ((0, B, E), None, "input of 0 time steps is not accepted: expected at least 1"),
        ((T, B, E), (1, B + 1, H), r"hx of shape \(1, 4, 6\) is not accepted: expected \(1, 3, 6\)"),
        ((T, B, E), (2, B, H), r"hx of shape \(2, 3, 6\) is not accepted: expected \(1, 3, 6\)"),
        ((T, E), (B, H), r"hx of shape \(3, 1, 6\) is not accepted: expected \(1, 1, 6\)"),
    ],
)
def test_shapes_that_do_not_fit(x_shape, h_shape, message):
    with pytest.raises(ValueError, match=message):
        make_layer()(random(*x_shape), None if h_shape is None else random(*h_shape))
