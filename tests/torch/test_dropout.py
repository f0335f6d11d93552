"""Dropout between layers, and variational dropout that a layer draws by itself."""

from __future__ import annotations

import pytest
import torch
from layers_torch import B, E, H, T, make_layer, random

import rhn
from rhn_torch import RHN


def test_dropout_acts_between_layers_while_training():
    layer, x = make_layer(num_layers=2, dropout=0.5), random(T, B, E)
    seen = []
    layer.cells[1].register_forward_pre_hook(lambda cell, arguments: seen.append(arguments[0]))
    torch.manual_seed(1)
    first = layer(x)[0]
    torch.manual_seed(1)
    assert torch.equal(layer(x)[0], first)
    assert not torch.equal(layer(x)[0], first)
    assert 0.2 < (seen[0] == 0).double().mean() < 0.8
    expected = make_layer(num_layers=2)(x)[0]
    assert torch.equal(layer.eval()(x)[0], expected)
    layer.train().dropout = 0.0  # may change, as nn.GRU's
    assert torch.equal(layer(x)[0], expected)


def test_dropout_without_a_layer_above_is_said_to_do_nothing():
    with pytest.warns(UserWarning, match=r"dropout=0\.5 has no effect"):
        RHN(E, H, dropout=0.5)


@pytest.mark.parametrize("share_gate_masks", [True, False])
def test_variational_dropout(share_gate_masks):
    rates = {"drop_input": 0.4, "drop_state": 0.25, "drop_update": 0.3}
    layer, x = make_layer(**rates, share_gate_masks=share_gate_masks), random(T, 50, E)
    masks = []
    layer.cells[0].register_forward_pre_hook(lambda cell, arguments: masks.append(arguments[2:5]))
    torch.manual_seed(1)
    output, _ = layer(x)
    input_mask, state_mask, update_mask = masks[0]
    assert update_mask.shape == (50, H)  # whatever the gates share
    for mask, rate in ((input_mask, 0.4), (state_mask, 0.25), (update_mask.unsqueeze(0), 0.3)):
        assert len(mask) == (1 if share_gate_masks or mask.data_ptr() == update_mask.data_ptr() else 2)
        assert set(mask.unique().tolist()) == {0.0, 1 / (1 - rate)}
        assert abs((mask == 0).double().mean() - rate) < 0.1
        assert not torch.equal(mask[0, 0], mask[0, 1])  # every row its own
    explicit = rhn.VariationalMasks(input=[input_mask], state=[state_mask], update=[update_mask])
    assert torch.equal(layer(x, masks=explicit)[0], output)  # constant over time, as explicit ones are, which win
    assert not torch.equal(layer(x)[0], output)  # anew for every call
    nothing = make_layer()
    assert torch.equal(layer(x, masks=rhn.VariationalMasks())[0], nothing(x)[0])
    assert torch.equal(layer.eval()(x)[0], nothing(x)[0])
