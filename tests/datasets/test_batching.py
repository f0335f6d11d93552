"""Windows: the authors' counts, and that every token is a target exactly once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rhn_datasets import DataError, windows

sizes = st.tuples(st.integers(1, 6), st.integers(1, 9))  # batch_size, bptt_length


def test_windows_of_the_penn_treebank_as_the_authors_count_them() -> None:
    train, valid, test = (np.zeros(count, np.uint16) for count in (929_589, 73_760, 82_430))
    assert len(windows(train, 20, 35, drop_last=True)) == 1_327
    assert windows(valid, 20, 35, drop_last=True).tokens_scored == 73_500
    assert windows(test, 20, 35, drop_last=True).tokens_scored == 81_900
    assert windows(valid, 1, 35, drop_last=False).tokens_scored == 73_759
    assert windows(test, 1, 35, drop_last=False).tokens_scored == 82_429


@given(st.integers(0, 60), sizes)
def test_without_drop_last_every_target_of_a_row_comes_once_and_in_order(extra: int, size: tuple[int, int]) -> None:
    batch_size, bptt_length = size
    tokens = np.arange(2 * batch_size + extra, dtype=np.uint16)
    cut = windows(tokens, batch_size, bptt_length, drop_last=False)
    columns = len(tokens) // batch_size
    rows = tokens[: batch_size * columns].reshape(batch_size, columns)
    np.testing.assert_array_equal(np.concatenate([inputs for inputs, _ in cut], axis=1), rows[:, :-1])
    np.testing.assert_array_equal(np.concatenate([targets for _, targets in cut], axis=1), rows[:, 1:])
    assert cut.tokens_scored == sum(targets.size for _, targets in cut)


@given(st.integers(0, 60), sizes)
def test_with_drop_last_the_full_windows_remain(extra: int, size: tuple[int, int]) -> None:
    batch_size, bptt_length = size
    tokens = np.arange(batch_size * (bptt_length + 1) + extra, dtype=np.uint16)
    training = windows(tokens, batch_size, bptt_length, drop_last=True)
    evaluation = windows(tokens, batch_size, bptt_length, drop_last=False)
    assert len(evaluation) - len(training) in {0, 1}
    assert training.tokens_scored == sum(targets.size for _, targets in training)
    for k in range(len(training)):
        inputs, targets = training[k]
        assert inputs.shape == targets.shape == (batch_size, bptt_length)
        assert inputs.dtype == targets.dtype == np.int32
        np.testing.assert_array_equal(inputs, evaluation[k][0])
        np.testing.assert_array_equal(targets, inputs + 1)


def test_any_window_can_be_had_alone() -> None:
    cut = windows(np.arange(24, dtype=np.uint8), 2, 4, drop_last=False)
    assert len(cut) == 3
    np.testing.assert_array_equal(cut[2][0], [[8, 9, 10], [20, 21, 22]])
    np.testing.assert_array_equal(cut[-1][1], [[9, 10, 11], [21, 22, 23]])
    with pytest.raises(IndexError):
        cut[3]


def test_windows_are_copies_and_may_be_changed() -> None:
    tokens = np.arange(24)
    windows(tokens, 2, 4, drop_last=True)[0][0][:] = -1
    np.testing.assert_array_equal(tokens, np.arange(24))


@pytest.mark.parametrize(("count", "drop_last", "needed"), [(720, True, 721), (0, True, 721), (39, False, 40)])
def test_too_short_a_corpus_names_options_and_counts(count: int, drop_last: bool, needed: int) -> None:
    batch_size = 20 if not drop_last else 7
    bptt_length = 102
    with pytest.raises(
        DataError,
        match=f"{count} tokens are too few for batch_size={batch_size} and bptt_length={bptt_length}: "
        f"one window needs {needed}",
    ):
        windows(np.zeros(count, np.uint8), batch_size, bptt_length, drop_last=drop_last)


def test_more_rows_than_an_array_may_have() -> None:
    with pytest.raises(DataError, match=f"9 tokens are too few for batch_size={10**30} and"):
        windows(np.zeros(9, np.uint8), 10**30, 1, drop_last=True)


@pytest.mark.parametrize(("batch_size", "bptt_length"), [(0, 35), (20, 0), (-1, 35)])
def test_impossible_sizes_are_named(batch_size: int, bptt_length: int) -> None:
    with pytest.raises(DataError, match=f"batch_size={batch_size} and bptt_length={bptt_length}"):
        windows(np.zeros(1000, np.uint8), batch_size, bptt_length, drop_last=True)
