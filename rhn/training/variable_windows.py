"""Cuts an epoch into windows of different lengths, and pads each window to the greatest possible length."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rhn.spec.masks import VariationalMasks
from rhn.spec.window_lengths import longest_window, window_length


class VariableWindows:
    """Window k of an epoch: inputs and targets (B, length of window k). The last window ends where the data end.

    Args:
        rows: (B, columns), a consecutive piece of the data in each row.
        seed, first_step: the seed of the run, and the number of the first step of the epoch.
        bptt_length, bptt_jitter: see `rhn.spec.window_lengths.window_length`.
    """

    def __init__(
        self, rows: NDArray[np.integer], seed: int, first_step: int, bptt_length: int, bptt_jitter: float
    ) -> None:
        self._rows = rows
        self._starts = [0]
        while (left := rows.shape[1] - 1 - self._starts[-1]) > 0:
            step = first_step + len(self._starts) - 1
            self._starts.append(self._starts[-1] + min(left, window_length(seed, step, bptt_length, bptt_jitter)))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, k: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        start, stop = self._starts[k], self._starts[k + 1]
        return np.array(self._rows[:, start:stop], np.int32), np.array(self._rows[:, start + 1 : stop + 1], np.int32)


class Padded(NamedTuple):
    """A window whose last time steps are padding."""

    inputs: NDArray[np.int32]
    targets: NDArray[np.int32]
    masks: VariationalMasks


def padded(
    inputs: NDArray[np.int32], targets: NDArray[np.int32], masks: VariationalMasks, bptt_length: int, jitter: float
) -> Padded:
    """The window with zeros after its end, in tokens and masks, so that all windows have one shape."""
    more = longest_window(bptt_length, jitter) - inputs.shape[1]

    def pad(array: NDArray, axis: int) -> NDArray:
        return np.pad(array, [(0, more if k == axis else 0) for k in range(array.ndim)])

    embedding, input_masks, output = masks.embedding, masks.input, masks.output
    if embedding is not None:
        embedding = pad(embedding, 1)  # (B, T)
    if input_masks is not None and input_masks[0].ndim == 4:
        input_masks = [pad(mask, 2) for mask in input_masks]  # (M, B, T, E_i)
    if output is not None and output.ndim == 3:
        output = pad(output, 1)  # (B, T, H)
    masks = masks._replace(embedding=embedding, input=input_masks, output=output)
    return Padded(pad(inputs, 1), pad(targets, 1), masks)
