"""The symbols of a corpus and their ids: text to tokens and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rhn_datasets.files import DataError

LEVELS = ("word", "char", "byte")
END_OF_LINE = "<eos>"
UNKNOWN = "<unk>"


def split_symbols(text: bytes, level: str) -> str | list[str]:
    """Split UTF-8 text into its symbols. This function defines what a symbol is.

    byte: a string with chr(b) for each byte b; char: the characters; word: what stands between white space,
    and `<eos>` for each line end, as Mikolov's reader of the Penn Treebank does.
    """
    if level == "byte":
        return text.decode("latin-1")
    if level == "char":
        return text.decode("utf-8")
    return text.decode("utf-8").replace("\n", f" {END_OF_LINE} ").split()


def _is_symbol(symbol: str, level: str) -> bool:
    """Whether `split_symbols` can return this symbol, or it is `<unk>`, which stands for others."""
    if not isinstance(symbol, str) or any("\ud800" <= c <= "\udfff" for c in symbol):
        return False
    if level == "word" or symbol == UNKNOWN:
        return bool(symbol)
    return len(symbol) == 1 and (level == "char" or symbol < "\u0100")


@dataclass(frozen=True)
class Vocabulary:
    """The symbols of one level; the id of a symbol is its index in `symbols`.

    At level "byte" the symbol of byte b is chr(b). `<unk>`, where the vocabulary has it, stands for all symbols
    that it has not.
    """

    symbols: tuple[str, ...]
    level: str

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise DataError(f"level={self.level!r} is not accepted: expected one of {', '.join(LEVELS)}")
        if not self.symbols or len(set(self.symbols)) != len(self.symbols):
            raise DataError("a vocabulary needs at least one symbol, and each symbol only once")
        for symbol in self.symbols:
            if not _is_symbol(symbol, self.level):
                raise DataError(f"{symbol!r} is not a symbol of level {self.level}")

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned integer type that holds every id."""
        return np.min_scalar_type(len(self.symbols) - 1)

    def encode(self, text: str | bytes) -> NDArray[np.unsignedinteger]:
        """Ids of the symbols of `text`, shape (n,), of type `dtype`; bytes are taken as UTF-8.

        Raises:
            DataError: a symbol is outside the vocabulary, and there is no `<unk>` to stand for it.
            UnicodeDecodeError: bytes are not UTF-8.
        """
        try:
            symbols = split_symbols(text.encode() if isinstance(text, str) else text, self.level)
        except UnicodeEncodeError as error:
            raise DataError(f"{text!r} is not accepted: it holds half a character") from error
        if isinstance(symbols, str):
            codes = np.frombuffer(symbols.encode("utf-32-le"), dtype="<u4")  # (n,)
            ids = self._id_of_code[np.minimum(codes, len(self._id_of_code) - 1)]  # (n,)
        else:
            ids = np.fromiter((self._id_of.get(word, -1) for word in symbols), np.int64, len(symbols))  # (n,)
        unseen = np.flatnonzero(ids < 0)
        if unseen.size:
            if UNKNOWN not in self._id_of:
                raise DataError(
                    f"{symbols[unseen[0]]!r} is not among the {len(self)} symbols of this {self.level} vocabulary"
                )
            ids[unseen] = self._id_of[UNKNOWN]
        return ids.astype(self.dtype)

    def decode(self, ids: Iterable[int] | NDArray[np.integer]) -> str:
        """The text of `ids`, shape (n,).

        Words are joined by spaces, `<eos>` becomes a line end; bytes that are not UTF-8 become U+FFFD.

        Raises:
            DataError: something is no id.
        """
        try:
            symbols = [self._symbol_of[int(i)] for i in ids]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"ids are not accepted: expected integers from 0 to {len(self) - 1}") from error
        if self.level == "word":
            spaced = " ".join("\n" if symbol == END_OF_LINE else symbol for symbol in symbols)
            return re.sub(" ?\n ?", "\n", spaced)
        text = "".join(symbols)
        return text.encode("latin-1").decode("utf-8", errors="replace") if self.level == "byte" else text

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for json.dumps, so that a checkpoint can carry the vocabulary."""
        return {"level": self.level, "symbols": list(self.symbols)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Vocabulary:
        """Inverse of `to_json`.

        Raises:
            DataError: `data` did not come from it.
        """
        symbols = data.get("symbols") if isinstance(data, Mapping) else None
        if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
            raise DataError('a stored vocabulary is {"level": …, "symbols": [strings]}, and this is not one')
        return cls(tuple(symbols), data.get("level", ""))

    @cached_property
    def _symbol_of(self) -> dict[int, str]:
        return dict(enumerate(self.symbols))

    @cached_property
    def _id_of(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.symbols)}

    @cached_property
    def _id_of_code(self) -> NDArray[np.int64]:
        """Id by code point, -1 where there is none; the last entry serves every larger code point. Shape (c,)."""
        id_of_code = {ord(symbol): i for i, symbol in enumerate(self.symbols) if len(symbol) == 1}
        table = np.full(max(id_of_code, default=0) + 2, -1)
        table[list(id_of_code)] = list(id_of_code.values())
        return table
