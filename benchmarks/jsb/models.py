"""The three networks of section 5.1 of the paper, all over 88 keys: RHN, DT-RNN and DT(S)-RNN.

The RHN is the public layer `rhn_torch.RHN`, used as anybody would. The deep transition RNNs (Pascanu et al., 2014) are
what it is compared with, and stand here as one writes them down.
"""

from __future__ import annotations

import torch
from chorales import KEYS
from torch import Tensor, nn
from torch.nn import functional as F

from rhn_torch import RHN

CELLS = ("RHN", "DT-RNN", "DT(S)-RNN")


class DeepTransitionRNN(nn.Module):
    """An RNN whose step from state to state is a feed-forward network of `depth` tanh layers.

    Args:
        hidden_size: units H of every level.
        depth: levels per time step.
        shortcut: DT(S)-RNN: the state of the time step before also reaches the last level directly.
    """

    def __init__(self, hidden_size: int, depth: int, shortcut: bool) -> None:
        super().__init__()
        self.input = nn.Linear(KEYS, hidden_size, bias=False)
        self.levels = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(depth))
        self.shortcut = nn.Linear(hidden_size, hidden_size, bias=False) if shortcut else None

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Input (B, T, KEYS) to the state after every time step (B, T, H); padding comes last, and needs no care."""
        s = x.new_zeros(len(x), self.levels[0].in_features)  # (B, H)
        outputs = []
        for projected in self.input(x).unbind(dim=1):  # (B, H)
            before = s
            for number, level in enumerate(self.levels, start=1):
                z = level(s)  # (B, H)
                if number == 1:
                    z = z + projected
                if number == len(self.levels) and self.shortcut is not None:
                    z = z + self.shortcut(before)
                s = torch.tanh(z)
            outputs.append(s)
        return torch.stack(outputs, dim=1)


class RHNOutputs(nn.Module):
    """`rhn_torch.RHN` that answers with its outputs only."""

    def __init__(self, hidden_size: int, depth: int, drop_input: float = 0.0, drop_state: float = 0.0) -> None:
        super().__init__()
        self.rhn = RHN(KEYS, hidden_size, depth, batch_first=True, drop_input=drop_input, drop_state=drop_state)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Input (B, T, KEYS), lengths (B,) to the state after every time step (B, T, H)."""
        return self.rhn(x, lengths=lengths)[0]


class MusicModel(nn.Module):
    """A recurrent layer and 88 independent keys.

    Args:
        cell: one of `CELLS`.
        hidden_size: units H.
        depth: micro-steps, or levels.
        drop_input, drop_state, drop_output: of an RHN; `drop_output` of the outputs, for every time step anew.
    """

    def __init__(
        self,
        cell: str,
        hidden_size: int,
        depth: int,
        drop_input: float = 0.0,
        drop_state: float = 0.0,
        drop_output: float = 0.0,
    ) -> None:
        super().__init__()
        self.recurrent = (
            RHNOutputs(hidden_size, depth, drop_input, drop_state)
            if cell == "RHN"
            else DeepTransitionRNN(hidden_size, depth, shortcut=cell == "DT(S)-RNN")
        )
        self.dropout = nn.Dropout(drop_output)
        self.keys = nn.Linear(hidden_size, KEYS)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Input (B, T, KEYS), lengths (B,) to logits (B, T, KEYS)."""
        return self.keys(self.dropout(self.recurrent(x, lengths)))

    def nats(self, x: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        """Negative log-likelihood summed over keys, frames and pieces; the padding does not count."""
        each = F.binary_cross_entropy_with_logits(self(x, lengths), y, reduction="none").sum(dim=-1)  # (B, T)
        valid = torch.arange(x.shape[1]) < lengths.unsqueeze(1)  # (B, T)
        return (each * valid).sum()


def initialise(model: MusicModel, std: float, transform_bias: float) -> None:
    """Gaussian weights, biases of zero, and `transform_bias` for the transform gates of an RHN, as in section 5.1."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std) if parameter.ndim > 1 else nn.init.zeros_(parameter)
    if isinstance(model.recurrent, RHNOutputs):
        for cell in model.recurrent.rhn.cells:
            with torch.no_grad():
                cell.bias.zero_()  # (L, G*H): candidate, transform gate
                cell.bias[:, cell.hidden_size :] = transform_bias


def hidden_size_of(cell: str, depth: int, parameters: int) -> int:
    """The hidden size whose model has as nearly as possible so many parameters."""

    def count(hidden_size: int) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in MusicModel(cell, hidden_size, depth).parameters())

    low, high = 1, 4096
    while high - low > 1:  # the count grows with the size
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= parameters else (low, middle)
    return min((low, high), key=lambda size: abs(count(size) - parameters))
