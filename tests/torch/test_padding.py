"""Sequences of different lengths: packed, nested and padded."""

from __future__ import annotations

import pytest
import torch
from layers_torch import EXACT, B, E, H, make_layer, random
from torch import Tensor, nn
from torch.nn.utils import rnn

import rhn
from rhn_torch import RHN


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"reverse": True}], ids=str)
@pytest.mark.parametrize("enforce_sorted", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
def test_packed_sequences(options, enforce_sorted, with_state):
    layer = make_layer(**options)
    lengths = [4, 2, 1] if enforce_sorted else [2, 4, 1]
    sequences = [random(length, E) for length in lengths]
    cells = len(list(layer.cells)) + len(list(layer.reverse_cells))
    h_0 = random(cells, B, H) if with_state else None
    masks = rhn.VariationalMasks(state=[torch.randint(0, 2, (1, B, H)) * 2.0 for _ in range(cells)])
    packed = rnn.pack_sequence(sequences, enforce_sorted=enforce_sorted)
    output, h_n = layer(packed, h_0, masks)
    assert torch.equal(output.batch_sizes, packed.batch_sizes)
    assert (output.sorted_indices is None) == (packed.sorted_indices is None)
    padded, found_lengths = rnn.pad_packed_sequence(output)
    assert found_lengths.tolist() == lengths
    expected, expected_h_n = layer(rnn.pad_sequence(sequences), h_0, masks, lengths)
    torch.testing.assert_close(padded, expected, **EXACT)
    torch.testing.assert_close(h_n, expected_h_n, **EXACT)
    output.data.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


def test_nested_tensors_are_refused_with_a_way_out():
    nested = torch.nested.nested_tensor([random(3, E), random(2, E)], layout=torch.jagged)
    layer = make_layer(batch_first=True)
    with pytest.raises(ValueError, match="a nested tensor is not accepted as input"):
        layer(nested)
    output, _ = layer(torch.nested.to_padded_tensor(nested, 0.0), lengths=nested.offsets().diff())
    torch.testing.assert_close(output[0], layer(random(3, E))[0], **EXACT)


@pytest.mark.parametrize("recurrence", ["fast", "plain", "recompute"])
def test_relu_does_not_grow_in_the_padding(recurrence):
    """Weights with which 400 time steps are too many for float64: the gradients are those of a row alone."""
    layer = make_layer(activation="relu", recurrence=recurrence, bidirectional=True, num_layers=2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.abs_()
    x = random(400, 2, E)
    assert not layer(x)[0].isfinite().all()
    gradients = []
    for window in (x, x[:3]):
        output, h_n = layer(window, lengths=[3, 2])
        gradients.append(torch.autograd.grad(output.sum() + h_n.sum(), [*layer.parameters()]))
    for padded, cut in zip(*gradients, strict=True):
        torch.testing.assert_close(padded, cut, rtol=1e-12, atol=0)


def test_a_classifier_of_padded_sequences_learns():
    """Which was the first token? With lengths from 3 to 12, both directions, and all dropout."""
    torch.manual_seed(0)
    symbols, batch_size, length = 4, 64, 12

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        lengths = torch.randint(3, length + 1, (batch_size,))
        tokens = torch.randint(0, symbols, (batch_size, length))
        tokens[torch.arange(length) >= lengths.unsqueeze(1)] = symbols  # padding
        return tokens, lengths, tokens[:, 0]

    embedding = nn.Embedding(symbols + 1, 16)
    layer = RHN(16, 24, 3, 2, True, dropout=0.1, bidirectional=True, drop_input=0.1, drop_state=0.1, init_scale=0.2)
    readout = nn.Linear(2 * 24, symbols)
    model = nn.ModuleList([embedding, layer, readout])

    def logits(tokens: Tensor, lengths: Tensor) -> Tensor:
        _, h_n = layer(embedding(tokens), lengths=lengths)
        return readout(torch.cat((h_n[-2], h_n[-1]), dim=-1))

    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        tokens, lengths, classes = batch()
        loss = nn.functional.cross_entropy(logits(tokens, lengths), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    tokens, lengths, classes = batch()
    assert (logits(tokens, lengths).argmax(-1) == classes).double().mean() > 0.95
