"""What the benchmarks train on what: models, windows and masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

import rhn

Step = Callable[[], None]  # one training step

LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM = 0.2, 1e-7, 10.0
SEED = 0


@dataclass(frozen=True)
class Shape:
    """What is trained on what.

    Attributes:
        config: the architecture.
        batch_size: B.
        length: T.
        rates: of dropping.
        lstm_layers: of the LSTM peer.
        lstm_units: of each of them; None: so many that it has the parameters of the RHN.
        peers: that are measured; None: all.
    """

    config: rhn.RHNConfig
    batch_size: int
    length: int
    rates: rhn.DropRates
    lstm_layers: int
    lstm_units: int | None = None
    peers: tuple[str, ...] | None = None

    def units_of_lstm(self) -> int:
        """Units of each layer of the LSTM peer: given, or the largest number that has no more parameters."""
        if self.lstm_units is not None:
            return self.lstm_units
        budget = rhn.parameter_count(self.config)
        return max(units for units in range(1, 4 * self.config.hidden_size) if self._lstm_size(units) <= budget)

    def _lstm_size(self, units: int) -> int:
        vocab_size, tied = self.config.vocab_size, self.config.tie_weights
        embedding_size = units if tied else self.config.embedding_width
        recurrent = sum(
            4 * units * ((embedding_size if layer == 0 else units) + units + 1) for layer in range(self.lstm_layers)
        )
        return recurrent + vocab_size * embedding_size + (0 if tied else vocab_size * units) + vocab_size


SHAPES = {
    "ptb": Shape(
        rhn.RHNConfig(vocab_size=10_000, hidden_size=830, recurrence_depth=10),
        batch_size=20,
        length=35,
        rates=rhn.DropRates(0.25, 0.75, 0.25, 0.75),
        lstm_layers=2,
    ),
    "small": Shape(
        rhn.RHNConfig(vocab_size=10_000, hidden_size=200, recurrence_depth=5),
        batch_size=20,
        length=35,
        rates=rhn.DropRates(0.1, 0.2, 0.1, 0.2),
        lstm_layers=2,
    ),
    "enwik8": Shape(
        rhn.RHNConfig(vocab_size=205, hidden_size=1500, recurrence_depth=10, embedding_size=205, tie_weights=False),
        batch_size=128,
        length=50,
        rates=rhn.DropRates(0.1, 0.4, 0.1, 0.4),
        lstm_layers=2,
        peers=("matmul",),  # autograd keeps 11 GB of the naive model, and a step of it takes a minute
    ),
    "tiny": Shape(
        rhn.RHNConfig(vocab_size=50, hidden_size=64, recurrence_depth=3),
        batch_size=20,
        length=35,
        rates=rhn.DropRates(0.1, 0.2, 0.1, 0.2),
        lstm_layers=3,
        lstm_units=64,
    ),
}


@dataclass
class Data:
    """Windows of random tokens, as many as are asked for, with their masks; the same for every peer."""

    shape: Shape
    steps: int = 0

    def next_window(self) -> tuple[NDArray, NDArray]:
        """Tokens and targets, (B, T) each."""
        self.steps += 1
        size = (self.shape.batch_size, self.shape.length + 1)
        stream = np.random.default_rng(self.steps).integers(0, self.shape.config.vocab_size, size)
        return stream[:, :-1], stream[:, 1:]

    def masks(self, tokens: NDArray) -> rhn.VariationalMasks:
        """Drawn as in training."""
        return rhn.sample_masks(self.shape.config, tokens, self.shape.rates, SEED, self.steps)


class DrawnData(Data):
    """A few windows with their masks, drawn beforehand and taken in turns, as training draws them while it computes.

    Args:
        shape: see `Data`.
        windows: how many.
    """

    def __init__(self, shape: Shape, windows: int = 4) -> None:
        super().__init__(shape)
        drawn = []
        for _ in range(windows):
            tokens, targets = super().next_window()
            drawn.append((tokens, targets, super().masks(tokens)))
        self._windows = cycle(drawn)

    def next_window(self) -> tuple[NDArray, NDArray]:
        tokens, targets, self._masks = next(self._windows)
        return tokens, targets

    def masks(self, tokens: NDArray) -> rhn.VariationalMasks:
        return self._masks
