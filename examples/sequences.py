"""Sequences of different lengths for the classifiers beside this file: does the larger symbol come first or last?"""

import numpy as np
from numpy.typing import NDArray

NUM_SYMBOLS = 10  # 1 to 9, and 0 for the padding
MAX_LENGTH = 20


def make_batch(
    generator: np.random.Generator, batch_size: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Tokens (B, MAX_LENGTH), lengths (B,) from 5 to MAX_LENGTH, and labels (B,).

    The label is 1 where the first symbol is larger than the last one before the padding. Whoever reads the padding
    cannot know the last symbol; whoever forgets cannot know the first.
    """
    lengths = generator.integers(5, MAX_LENGTH + 1, batch_size)  # (B,)
    tokens = generator.integers(1, NUM_SYMBOLS, (batch_size, MAX_LENGTH))  # (B, T)
    rows = np.arange(batch_size)  # (B,)
    last = (tokens[rows, 0] - 1 + generator.integers(1, NUM_SYMBOLS - 1, batch_size)) % (NUM_SYMBOLS - 1) + 1  # (B,)
    tokens[rows, lengths - 1] = last  # never the same as the first
    labels = tokens[:, 0] > last  # (B,)
    tokens[np.arange(MAX_LENGTH) >= lengths[:, np.newaxis]] = 0
    return tokens.astype(np.int32), lengths.astype(np.int32), labels.astype(np.int32)
