"""Peers of `training_step.py` in torch. Each function makes what it needs for a shape and returns one training step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training_step import LEARNING_RATE, MAX_GRAD_NORM, WEIGHT_DECAY, Data, Shape, Step

import rhn


class NaiveRHN(nn.Module):
    """The equations of the paper as one writes them down: one `nn.Linear` per gate and micro-step, no layer above."""

    def __init__(self, config: rhn.RHNConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_width)
        self.input_h = nn.Linear(config.embedding_width, hidden, bias=False)
        self.input_t = nn.Linear(config.embedding_width, hidden, bias=False)
        self.recurrent_h = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(config.recurrence_depth))
        self.recurrent_t = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(config.recurrence_depth))
        self.softmax = nn.Linear(hidden, config.vocab_size)
        if config.tie_weights:
            self.softmax.weight = self.embedding.weight
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.04, 0.04)
        for linear in self.recurrent_t:
            nn.init.constant_(linear.bias, -2.0)

    def forward(self, tokens: Tensor, s: Tensor, masks: rhn.VariationalMasks) -> tuple[Tensor, Tensor]:
        """Tokens (B, T) and state (B, H) to logits (B, T, V) and state."""
        x = self.embedding(tokens) * masks.embedding.unsqueeze(-1)  # (B, T, E)
        input_mask, state_mask = masks.input[0][0], masks.state[0][0]  # (B, E), (B, H)
        outputs = []
        for time in range(tokens.shape[1]):
            x_now = x[:, time] * input_mask  # (B, E)
            for level, (recurrent_h, recurrent_t) in enumerate(zip(self.recurrent_h, self.recurrent_t, strict=True)):
                u = s * state_mask  # (B, H)
                z_h, z_t = recurrent_h(u), recurrent_t(u)  # (B, H)
                if level == 0:
                    z_h, z_t = z_h + self.input_h(x_now), z_t + self.input_t(x_now)
                h, t = torch.tanh(z_h), torch.sigmoid(z_t)  # (B, H)
                s = h * t + s * (1 - t)  # (B, H)
            outputs.append(s)
        top = torch.stack(outputs, dim=1) * masks.output.unsqueeze(1)  # (B, T, H)
        return self.softmax(top), s


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


def naive_step(shape: Shape) -> Step:
    """One step of `NaiveRHN`."""
    data, model = Data(shape), NaiveRHN(shape.config)
    state = torch.zeros(shape.batch_size, shape.config.hidden_size)
    update = _trainer(model)

    def step() -> None:
        nonlocal state
        tokens, targets = data.next_window()
        masks = _as_tensors(data.masks(tokens))
        logits, new_state = model(torch.from_numpy(tokens), state, masks)
        state = new_state.detach()
        update(logits, torch.from_numpy(targets))

    return step


def lstm_step(shape: Shape) -> Step:
    """One step of `LSTMLanguageModel`."""
    data, model = Data(shape), LSTMLanguageModel(shape)
    state: tuple[Tensor, Tensor] | None = None
    update = _trainer(model)

    def step() -> None:
        nonlocal state
        tokens, targets = data.next_window()
        logits, (h, c) = model(torch.from_numpy(tokens), state)
        state = (h.detach(), c.detach())
        update(logits, torch.from_numpy(targets))

    return step


def matmul_step(shape: Shape) -> Step:
    """The matrix products of one step of an RHN with one layer and shared masks, in order."""
    config, batch_size, length = shape.config, shape.batch_size, shape.length
    rows, hidden, depth = batch_size * length, config.hidden_size, config.recurrence_depth
    width, vocab_size, embedding_size = config.num_gates * hidden, config.vocab_size, config.embedding_width

    embedded, input_weight = torch.randn(rows, embedding_size), torch.randn(width, embedding_size)
    recurrent_weights = [torch.randn(width, hidden) for _ in range(depth)]
    softmax_weight = torch.randn(vocab_size, hidden)
    states, gates = torch.randn(depth, length, batch_size, hidden), torch.randn(depth, length, batch_size, width)
    top, logits = torch.randn(rows, hidden), torch.randn(rows, vocab_size)
    gate_views, state_views = [g.unbind() for g in gates], [s.unbind() for s in states]  # [level][time]

    projected, d_embedded, d_input_weight = (
        torch.empty_like(t) for t in (gates[0].flatten(0, 1), embedded, input_weight)
    )
    d_recurrent_weight, d_softmax_weight, d_top = (
        torch.empty_like(t) for t in (recurrent_weights[0], softmax_weight, top)
    )
    new_gates, d_state = torch.empty(batch_size, width), torch.empty(batch_size, hidden)
    new_logits = torch.empty_like(logits)

    def step() -> None:
        torch.mm(embedded, input_weight.t(), out=projected)
        for time in range(length):
            for level in range(depth):
                torch.mm(state_views[level][time], recurrent_weights[level].t(), out=new_gates)
        torch.mm(top, softmax_weight.t(), out=new_logits)
        torch.mm(logits, softmax_weight, out=d_top)
        torch.mm(logits.t(), top, out=d_softmax_weight)
        for time in reversed(range(length)):
            for level in reversed(range(depth)):
                torch.mm(gate_views[level][time], recurrent_weights[level], out=d_state)
        for level in range(depth):
            torch.mm(gates[level].flatten(0, 1).t(), states[level].flatten(0, 1), out=d_recurrent_weight)
        torch.mm(gates[0].flatten(0, 1).t(), embedded, out=d_input_weight)
        torch.mm(gates[0].flatten(0, 1), input_weight, out=d_embedded)

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


def _as_tensors(masks: rhn.VariationalMasks) -> rhn.VariationalMasks:
    return rhn.VariationalMasks(
        torch.as_tensor(masks.embedding, dtype=torch.float32),
        [torch.as_tensor(mask, dtype=torch.float32) for mask in masks.input],
        [torch.as_tensor(mask, dtype=torch.float32) for mask in masks.state],
        torch.as_tensor(masks.output, dtype=torch.float32),
    )
