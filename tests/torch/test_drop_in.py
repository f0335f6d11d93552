"""RHN in place of `nn.GRU`: what it takes, and what it refuses in a sentence."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from layers_torch import EXACT, B, E, H, L, T, X, make_layer, random, steps
from torch import nn
from torch.nn.utils import rnn

import rhn
from rhn_torch import RHN, RHNCell

# ----------------------------------------------------------------------------------------------------------------------
# What nn.GRU takes
# ----------------------------------------------------------------------------------------------------------------------


def test_depth_has_a_default():
    assert RHN(E, H).recurrence_depth == RHNCell(E, H).recurrence_depth == 5


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_shapes_are_those_of_gru(num_layers, batch_first, bidirectional):
    options = {"num_layers": num_layers, "batch_first": batch_first, "bidirectional": bidirectional}
    gru, layer = nn.GRU(E, H, **options), RHN(E, H, L, **options)
    directions = 2 if bidirectional else 1
    batched = torch.zeros(B, T, E) if batch_first else torch.zeros(T, B, E)
    windows = [
        (batched, torch.zeros(num_layers * directions, B, H)),
        (torch.zeros(T, E), torch.zeros(num_layers * directions, H)),
    ]
    for x, h in windows:
        expected = [result.shape for result in gru(x, h)]
        assert [result.shape for result in layer(x, h)] == expected
        assert [result.shape for result in layer(input=x, hx=h)] == expected
        assert [result.shape for result in layer(x=x, h_0=h)] == expected  # their names before version 0.2


@pytest.mark.parametrize("num_layers", [1, 2])
def test_both_directions_are_two_layers_side_by_side(num_layers):
    layer, x = make_layer(num_layers=num_layers, bidirectional=True), random(T, B, E)
    h_0 = random(2 * num_layers, B, H)
    output, h_n = layer(x, h_0)
    below, states = x, []
    for i in range(num_layers):
        forward = torch.stack(list(steps(layer.cells[i], below, h_0[2 * i])))
        reverse = torch.stack(list(steps(layer.reverse_cells[i], below.flip(0), h_0[2 * i + 1])))
        states += [forward[-1], reverse[-1]]
        below = torch.cat((forward, reverse.flip(0)), dim=-1)
    torch.testing.assert_close(output, below, **EXACT)
    torch.testing.assert_close(h_n, torch.stack(states), **EXACT)


def test_without_biases():
    layer = make_layer(num_layers=2, bias=False, recurrence="plain")
    assert not [name for name, _ in layer.named_parameters() if "bias" in name]
    with_zeros, x = make_layer(num_layers=2), random(T, B, E)
    exported = layer.export_parameters()
    assert not exported["layers.1.bias"].any()
    with_zeros.load_parameters(exported)
    torch.testing.assert_close(layer(x)[0], with_zeros(x)[0], **EXACT)
    with pytest.raises(ValueError, match="biases that are not zero are not accepted by a layer with bias=False"):
        layer.load_parameters(make_layer(num_layers=2).export_parameters())


@pytest.mark.parametrize("options", [{"num_layers": 2}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_parameters_move_between_layers(options):
    layer, other, x = make_layer(**options), make_layer(**options), random(T, B, E)
    other.reset_parameters()
    other.load_parameters(layer.export_parameters())
    assert torch.equal(layer(x)[0], other(x)[0])
    with pytest.raises(ValueError, match="parameters do not fit the layer: missing"):
        layer.load_parameters({})


def test_a_cell_needs_neither_state_nor_batch():
    cell, x, h = RHNCell(E, H, L, dtype=torch.float64), random(B, E), random(B, H)
    assert torch.equal(cell(x), cell(x, torch.zeros(B, H, dtype=torch.float64)))
    torch.testing.assert_close(cell(x[0], h[0]), cell(x, h)[0], **EXACT)
    assert cell(x[0]).shape == (H,)
    assert torch.equal(cell(input=x, hx=h), cell(x=x, h=h))
    window = x.expand(T, B, E)
    torch.testing.assert_close(cell(window, h), torch.stack(list(steps(cell, window, h))), **EXACT)


def test_what_code_for_gru_calls():
    layer = make_layer(num_layers=2, bidirectional=True)
    layer.flatten_parameters()
    assert [len(weights) for weights in layer.all_weights] == [L + 2] * 4
    assert "num_layers=2, bidirectional=True)" in repr(layer).replace("\n", "").replace("  (cells)", ")")


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2, "dropout": 0.5, "drop_state": 0.5}])
def test_copies(options):
    layer, x = make_layer(**options).eval(), random(T, B, E)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(layer(x)[0], other(x)[0])


# ----------------------------------------------------------------------------------------------------------------------
# What is refused, in a sentence
# ----------------------------------------------------------------------------------------------------------------------


REFUSED_OPTIONS = [
    ({"dropout": 1.0}, r"dropout=1\.0 is not accepted: expected a number from 0 up to, not including, 1"),
    ({"drop_input": -0.1}, r"drop_input=-0\.1 is not accepted"),
    ({"drop_state": "a"}, "drop_state='a' is not accepted"),
    ({"bidirectional": 1}, "bidirectional=1 is not accepted: expected True or False"),
    ({"bias": None}, "bias=None is not accepted: expected True or False"),
    ({"bidirectional": True, "reverse": True}, "reverse=True is not accepted with bidirectional=True"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED_OPTIONS)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_layer(**options)


ONES = [torch.ones(1, B, E)]

REFUSED_ARGUMENTS = [
    (
        {"hx": torch.zeros(1, B, H)},
        r"hx\.dtype=torch\.float32 is not accepted: expected torch\.float64, which the param",
    ),
    ({"input": X.float()}, r"input\.dtype=torch\.float32 is not accepted: expected torch\.float64, which the param"),
    (
        {"masks": rhn.VariationalMasks(input=[ONES[0][:, :1]])},
        r"masks\.input\[0\] of shape \(1, 1, 5\) is not accepted",
    ),
    ({"masks": rhn.VariationalMasks(state=ONES)}, r"masks\.state\[0\] of shape \(1, 3, 5\) is not accepted"),
    (
        {"masks": rhn.VariationalMasks(input=ONES * 2)},
        r"masks\.input of 2 entries is not accepted: expected one per la",
    ),
    ({"lengths": [1, 2]}, r"lengths of shape \(2,\) and dtype torch\.int64 are not accepted: expected \(3,\) integers"),
    ({"lengths": [1, 2, 5]}, r"lengths=\[1, 2, 5\] is not accepted: expected integers from 0 to 4"),
    ({"lengths": torch.tensor([1.0, 2.0, 3.0])}, "are not accepted"),
    ({"input": X[:, 0], "lengths": [2]}, "lengths are not accepted with one sequence"),
    ({"input": rnn.pack_sequence([X[:, 0]]), "lengths": [2]}, "lengths are not accepted with a PackedSequence"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED_ARGUMENTS)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_layer()(**{"input": X, **arguments})


def test_an_empty_batch():
    layer, x = make_layer(num_layers=2), torch.zeros(T, 0, E, dtype=torch.float64, requires_grad=True)
    output, h_n = layer(x, lengths=[])
    assert output.shape == (T, 0, H)
    assert h_n.shape == (2, 0, H)
    output.sum().backward()
    assert x.grad is not None
