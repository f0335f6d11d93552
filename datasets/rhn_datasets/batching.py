"""Cuts tokens into windows for truncated backpropagation through time, as the authors' reader does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from rhn_datasets.files import DataError

Window = tuple[NDArray[np.int32], NDArray[np.int32]]


@dataclass(frozen=True, eq=False)
class Windows:
    """Window k is (inputs, targets), both int32 (B, T): columns kT to kT + T of `rows`, and the columns one further.

    Any window can be had without those before it, so a run can resume in the middle of an epoch.
    """

    rows: NDArray[np.integer]  # (B, columns): row b holds the b-th consecutive piece of the corpus
    bptt_length: int
    drop_last: bool

    def __len__(self) -> int:
        targets_per_row = self.rows.shape[1] - 1
        full = targets_per_row // self.bptt_length
        return full if self.drop_last else full + (targets_per_row % self.bptt_length > 0)

    def __getitem__(self, k: int) -> Window:
        start = range(len(self))[k] * self.bptt_length  # the range counts from the end too, and raises IndexError
        stop = min(start + self.bptt_length, self.rows.shape[1] - 1)
        inputs = np.array(self.rows[:, start:stop], np.int32)  # (B, T), the last one perhaps shorter
        targets = np.array(self.rows[:, start + 1 : stop + 1], np.int32)  # (B, T)
        return inputs, targets

    def __iter__(self) -> Iterator[Window]:
        return (self[k] for k in range(len(self)))

    @property
    def tokens_scored(self) -> int:
        """Number of targets in one pass over all windows."""
        batch_size, columns = self.rows.shape
        return batch_size * (len(self) * self.bptt_length if self.drop_last else columns - 1)


def windows(tokens: NDArray[np.integer], batch_size: int, bptt_length: int, *, drop_last: bool) -> Windows:
    """Cut tokens into rows of n // batch_size, and these into windows of `bptt_length`.

    Args:
        tokens: (n,) integers. The last n % batch_size tokens are not used.
        batch_size: number of rows B.
        bptt_length: number of columns T of a window.
        drop_last: leave out a shorter last window, as the authors' reader does in training. Otherwise it is included,
            as needed in evaluation.

    Raises:
        DataError: an option is not accepted, or the corpus is too short for a single window.
    """
    sizes = (batch_size, bptt_length)
    if not all(isinstance(size, Integral) and not isinstance(size, bool) and size >= 1 for size in sizes):
        raise DataError(
            f"batch_size={batch_size!r} and bptt_length={bptt_length!r} are not accepted: expected integers of at least"
            " 1"
        )
    if not isinstance(tokens, np.ndarray) or tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise DataError(f"tokens of {type(tokens).__name__} are not accepted: expected an array of integers, (n,)")
    columns = len(tokens) // batch_size
    columns_needed = bptt_length + 1 if drop_last else 2
    if columns < columns_needed:
        raise DataError(
            f"{len(tokens)} tokens are too few for batch_size={batch_size} and bptt_length={bptt_length}: "
            f"one window needs {batch_size * columns_needed}"
        )
    rows = tokens[: batch_size * columns].reshape(batch_size, columns)  # (B, columns), a view
    return Windows(rows, bptt_length, drop_last)
