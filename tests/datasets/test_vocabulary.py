"""Vocabularies: text to ids and back, the dtype of the ids, JSON, and symbols that are not there."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rhn_datasets import DataError, Vocabulary
from rhn_datasets.vocabulary import split_symbols

ALL_BYTES = Vocabulary(tuple(map(chr, range(256))), "byte")


@given(st.text())
def test_bytes_round_trip_for_any_text(text: str) -> None:
    ids = ALL_BYTES.encode(text)
    assert bytes(ids) == text.encode()
    assert ALL_BYTES.decode(ids) == text


@given(st.text(min_size=1))
def test_characters_round_trip_for_any_text(text: str) -> None:
    vocabulary = Vocabulary(tuple(sorted(set(text))), "char")
    assert vocabulary.decode(vocabulary.encode(text)) == text
    np.testing.assert_array_equal(vocabulary.encode(text), [vocabulary.symbols.index(c) for c in text])


@given(st.lists(st.sampled_from(["the", "cat", "<unk>", "<eos>", "naïve", "N"])))
def test_words_round_trip_with_line_ends(words: list[str]) -> None:
    vocabulary = Vocabulary(("the", "<unk>", "<eos>", "N", "cat", "naïve"), "word")
    ids = [vocabulary.symbols.index(word) for word in words]
    np.testing.assert_array_equal(vocabulary.encode(vocabulary.decode(ids)), ids)


def test_words_are_joined_by_spaces_and_lines_by_line_ends() -> None:
    vocabulary = Vocabulary(("a", "b", "<eos>"), "word")
    assert vocabulary.decode([0, 1, 2, 2, 0, 2]) == "a b\n\na\n"


def test_bytes_that_are_not_utf8_are_replaced() -> None:
    assert ALL_BYTES.decode([0x61, 0xC3, 0x62]) == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        (b" the cat \n sat \n", ["the", "cat", "<eos>", "sat", "<eos>"]),
        (b"no line end", ["no", "line", "end"]),
        (b"one\r\ntwo\n\nthree", ["one", "<eos>", "two", "<eos>", "<eos>", "three"]),
    ],
)
def test_a_word_is_what_stands_between_white_space(text: bytes, symbols: list[str]) -> None:
    assert split_symbols(text, "word") == symbols


@pytest.mark.parametrize(
    ("size", "dtype"), [(1, "uint8"), (256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "uint32")]
)
def test_ids_have_the_smallest_unsigned_type(size: int, dtype: str) -> None:
    vocabulary = Vocabulary(tuple(map(str, range(size))), "word")
    ids = vocabulary.encode(f"{size - 1} 0")
    assert ids.dtype == dtype
    np.testing.assert_array_equal(ids, [size - 1, 0])


@pytest.mark.parametrize(("level", "text"), [("char", "cab☃"), ("word", "c a b snow")])
def test_unseen_symbols_become_unk_or_an_error(level: str, text: str) -> None:
    with_unknown = Vocabulary(("a", "b", "c", "<unk>"), level)
    np.testing.assert_array_equal(with_unknown.encode(text), [2, 0, 1, 3])
    with pytest.raises(DataError, match=r"'(☃|snow)' is not among the 3 symbols of this (char|word) vocabulary"):
        Vocabulary(("a", "b", "c"), level).encode(text)


@pytest.mark.parametrize("level", ["word", "char", "byte"])
def test_json_round_trip(level: str) -> None:
    vocabulary = Vocabulary(("a", "é", "\n", "<unk>"), level)
    assert Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json()))) == vocabulary
    assert len(vocabulary) == 4


@pytest.mark.parametrize(
    "foreign", [{}, [], {"level": "word"}, {"level": "word", "symbols": [1]}, {"level": "line", "symbols": ["a"]}]
)
def test_foreign_json_is_refused(foreign: object) -> None:
    with pytest.raises(DataError, match=r"stored vocabulary|level=.* is not accepted"):
        Vocabulary.from_json(foreign)  # type: ignore[arg-type]


@pytest.mark.parametrize("symbols", [(), ("a", "a")])
def test_symbols_must_be_there_and_distinct(symbols: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="each symbol only once"):
        Vocabulary(symbols, "word")


@pytest.mark.parametrize(
    ("symbols", "level"), [(("ab",), "char"), (("\u0100",), "byte"), (("\ud800",), "word"), (("",), "word")]
)
def test_what_no_text_can_hold_is_no_symbol(symbols: tuple[str, ...], level: str) -> None:
    with pytest.raises(DataError, match=f"is not a symbol of level {level}"):
        Vocabulary(symbols, level)


@pytest.mark.parametrize("ids", [[3], [-1], ["a"], [None]])
def test_what_is_no_id_is_refused(ids: list[Any]) -> None:
    with pytest.raises(DataError, match="expected integers from 0 to 2"):
        Vocabulary(("a", "b", "c"), "char").decode(ids)
