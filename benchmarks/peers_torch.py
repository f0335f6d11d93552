"""Peers of `training_step.py` in torch. Each function makes what it needs for a shape and returns one training step."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from shapes import LEARNING_RATE, MAX_GRAD_NORM, WEIGHT_DECAY, Data, Shape, Step
from torch import Tensor, nn
from torch.nn import functional as F

from rhn.spec.optimizers import PAPER_SGD
from rhn_torch.model import RHNLanguageModel
from rhn_torch.precision import Precision
from rhn_torch.update import Update
from rhn_torch.weights import mask_tensors, to_device

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from naive_rhn import NaiveRHN


class LSTMLanguageModel(nn.Module):
    """Embedding, `nn.LSTM`, softmax, with dropout between them."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        config, units = shape.config, shape.units_of_lstm()
        embedding_size = units if config.tie_weights else config.embedding_width
        self.embedding = nn.Embedding(config.vocab_size, embedding_size)
        self.lstm = nn.LSTM(embedding_size, units, shape.lstm_layers, batch_first=True, dropout=shape.rates.drop_state)
        self.softmax = nn.Linear(units, config.vocab_size)
        if config.tie_weights:
            self.softmax.weight = self.embedding.weight
        self.drop_input = nn.Dropout(shape.rates.drop_input)
        self.drop_output = nn.Dropout(shape.rates.drop_output)

    def forward(self, tokens: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Tokens (B, T) to logits (B, T, V)."""
        output, state = self.lstm(self.drop_input(self.embedding(tokens)), state)
        return self.softmax(self.drop_output(output)), state


def naive_step(shape: Shape, data: Data | None = None, device: str = "cpu") -> Step:
    """One step of `NaiveRHN`; nothing waits for the device."""
    return _step_of_naive(NaiveRHN(shape.config).to(device), data or Data(shape))


def compiled_step(shape: Shape) -> Step:
    """One step of `NaiveRHN` with its time step compiled. The loop over time stays in Python: it would be unrolled.

    Raises:
        RuntimeError: there is no C++ compiler, which `torch.compile` needs.
    """
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise RuntimeError(f"the peer 'compiled' needs a C++ compiler, and {compiler} (variable CXX) is not found")
    model = NaiveRHN(shape.config)
    model.time_step = torch.compile(model.time_step, dynamic=False)
    return _step_of_naive(model, Data(shape))


def _step_of_naive(model: NaiveRHN, data: Data) -> Step:
    weight = model.embedding.weight
    state = weight.new_zeros(data.shape.batch_size, data.shape.config.hidden_size)
    update = _trainer(model)

    def step() -> None:
        nonlocal state
        tokens, targets = data.next_window()
        masks = mask_tensors(data.masks(tokens), like=weight)
        logits, new_state = model(to_device(tokens, torch.int64, weight.device), state, masks)
        state = new_state.detach()
        update(logits, to_device(targets, torch.int64, weight.device))

    return step


def lstm_step(shape: Shape, data: Data | None = None, device: str = "cpu") -> Step:
    """One step of `LSTMLanguageModel`; nothing waits for the device."""
    windows, model = data or Data(shape), LSTMLanguageModel(shape).to(device)
    place = model.softmax.weight.device
    state: tuple[Tensor, Tensor] | None = None
    update = _trainer(model)

    def step() -> None:
        nonlocal state
        tokens, targets = windows.next_window()
        logits, (h, c) = model(to_device(tokens, torch.int64, place), state)
        state = (h.detach(), c.detach())
        update(logits, to_device(targets, torch.int64, place))

    return step


def matmul_step(shape: Shape) -> Step:
    """The matrix products of one step of an RHN with one layer and shared masks, in order, by the library that the RHN
    takes."""
    config, batch_size, length = shape.config, shape.batch_size, shape.length
    rows, hidden, depth = batch_size * length, config.hidden_size, config.recurrence_depth
    width, vocab_size, embedding_size = config.num_gates * hidden, config.vocab_size, config.embedding_width

    embedded, input_weight = torch.randn(rows, embedding_size), torch.randn(width, embedding_size)
    recurrent_weights = [torch.randn(config.num_gates, hidden, hidden) for _ in range(depth)]
    softmax_weight = torch.randn(vocab_size, hidden)
    states, gates = torch.randn(depth, length, batch_size, hidden), torch.randn(depth, config.num_gates, rows, hidden)
    top, logits = torch.randn(rows, hidden), torch.randn(rows, vocab_size)
    # The gates side by side in one `bmm`, as the RHN takes them: [micro_step] (G, H, H), [micro_step][time] (G, B, H).
    transposed_weights = [weight.transpose(1, 2) for weight in recurrent_weights]
    state_views = [s.unsqueeze(1).expand(-1, config.num_gates, -1, -1).unbind() for s in states]
    gate_views = [g.unflatten(1, (length, batch_size)).unbind(1) for g in gates]
    states_of_gates = [s.flatten(0, 1).expand(config.num_gates, -1, -1) for s in states]  # [micro_step] (G, T*B, H)
    d_projected = torch.randn(rows, width)

    projected, d_embedded, d_input_weight = (torch.empty_like(t) for t in (d_projected, embedded, input_weight))
    d_recurrent_weight, d_softmax_weight, d_top = (
        torch.empty_like(t) for t in (recurrent_weights[0], softmax_weight, top)
    )
    new_gates = torch.empty(config.num_gates, batch_size, hidden)
    new_logits = torch.empty_like(logits)

    def all_products() -> None:
        torch.mm(embedded, input_weight.t(), out=projected)
        for time in range(length):
            for micro_step in range(depth):
                torch.bmm(state_views[micro_step][time], transposed_weights[micro_step], out=new_gates)
        torch.mm(top, softmax_weight.t(), out=new_logits)
        torch.mm(logits, softmax_weight, out=d_top)
        torch.mm(logits.t(), top, out=d_softmax_weight)
        for time in reversed(range(length)):
            for micro_step in reversed(range(depth)):
                torch.bmm(gate_views[micro_step][time], recurrent_weights[micro_step], out=new_gates)
        for micro_step in range(depth):
            torch.bmm(gates[micro_step].transpose(1, 2), states_of_gates[micro_step], out=d_recurrent_weight)
        torch.mm(d_projected.t(), embedded, out=d_input_weight)
        torch.mm(d_projected, input_weight, out=d_embedded)

    def step() -> None:
        with Precision("float32", torch.device("cpu")).products():
            all_products()

    return step


def update_step(shape: Shape) -> Step:
    """Decay, norm, clipping and update of every parameter, from gradients that are there."""
    parameters = dict(RHNLanguageModel(shape.config).named_parameters())
    gradients = [torch.ones_like(parameter) for parameter in parameters.values()]
    update = Update(shape.config, PAPER_SGD, parameters, {})

    def step() -> None:
        for gradient, parameter in zip(gradients, parameters.values(), strict=True):
            gradient.add_(parameter.detach(), alpha=WEIGHT_DECAY)
        update(gradients, LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM)

    return step


def _trainer(model: nn.Module) -> Callable[[Tensor, Tensor], None]:
    """Loss, backward, clipping and update by the framework's own functions."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def update(logits: Tensor, targets: Tensor) -> None:
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / len(targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()

    return update
