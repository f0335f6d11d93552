"""Converts raw text to token arrays, in small pieces, with a memory-mapped cache for large corpora."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rhn_datasets.files import DataError, atomic_write, default_cache, digest_of
from rhn_datasets.vocabulary import UNKNOWN, Vocabulary, split_symbols

Text = NDArray[np.uint8]  # (bytes,): UTF-8 text, usually a memory map of a file or of a part of one
Tokens = NDArray[np.unsignedinteger]  # (tokens,)

BLOCK = 1 << 20  # bytes of text at a time
LARGE = 1 << 25  # bytes of text from which on the tokens are kept in a file and memory-mapped
CACHE_FORMAT = 2  # to be raised whenever the same text and level would give other tokens

_WHITE_SPACE = frozenset(b" \t\r\n")


def read_text(path: Path) -> Text:
    """Memory map of a file.

    Raises:
        DataError: the file does not exist or is empty.
    """
    try:
        return np.memmap(path, np.uint8, "r")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # NumPy's answer to an empty file
        raise DataError(f"{path} is empty") from error


def cut(text: Text, position: int, level: str) -> int:
    """The first place at or after `position` (in bytes) where `text` can be cut without breaking a symbol."""
    while 0 < position < len(text):
        if level == "byte":
            break
        if level == "char" and text[position] & 0b1100_0000 != 0b1000_0000:  # not inside a UTF-8 sequence
            break
        if level == "word" and int(text[position - 1]) in _WHITE_SPACE:
            break
        position += 1
    return min(position, len(text))


def tokenise(splits: list[Text], level: str, cache: Path | None) -> tuple[list[Tokens], Vocabulary]:
    """Token arrays of train, valid and test, read-only and of the smallest unsigned type, and their vocabulary.

    Large corpora are encoded only once, into a file in the folder `cache`, and are memory-mapped.
    """
    if sum(len(text) for text in splits) < LARGE:
        vocabulary = build_vocabulary(splits, level)
        arrays = [np.concatenate([vocabulary.encode(block) for block in _blocks(text, level)]) for text in splits]
        for array in arrays:
            array.flags.writeable = False
        return arrays, vocabulary

    key, cache = _key(splits, level), cache or default_cache()
    header_file, token_file = cache / f"{key}.json", cache / f"{key}.tokens"
    # Not there yet, or somebody damaged it.
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError, DataError):
        return _read_cached(header_file, token_file)
    vocabulary = build_vocabulary(splits, level)
    content = {"lengths": _write_tokens(splits, vocabulary, token_file), "vocabulary": vocabulary.to_json()}
    with atomic_write(header_file) as file:
        file.write(json.dumps({**content, "checksum": _checksum(content, token_file)}).encode())
    return _read_cached(header_file, token_file)


def build_vocabulary(splits: list[Text], level: str) -> Vocabulary:
    """Symbols of the training split: words by (-count, word), characters in order; then `<unk>` if the other splits
    need it. Bytes: all bytes of all splits, in order."""
    train, *others = splits
    if level == "word":
        counts: Counter[str] = Counter()
        for block in _blocks(train, level):
            counts.update(split_symbols(block, level))
        symbols = sorted(counts, key=lambda word: (-counts[word], word))
    else:
        symbols = sorted(_symbols_in(train, level))
    unseen = set().union(*(_symbols_in(text, level) for text in others)).difference(symbols)
    if level == "byte":
        symbols = sorted(unseen.union(symbols))
    elif unseen and UNKNOWN not in symbols:
        symbols.append(UNKNOWN)
    return Vocabulary(tuple(symbols), level)


def _symbols_in(text: Text, level: str) -> set[str]:
    found: set[str] = set()
    for block in _blocks(text, level):
        found.update(split_symbols(block, level))
    return found


def _blocks(text: Text, level: str) -> Iterator[bytes]:
    start = 0
    while start < len(text):
        stop = cut(text, start + BLOCK, level)
        yield text[start:stop].tobytes()
        start = stop


def _read_cached(header_file: Path, token_file: Path) -> tuple[list[Tokens], Vocabulary]:
    header: Any = json.loads(header_file.read_bytes())
    if not isinstance(header, dict) or header.pop("checksum") != _checksum(header, token_file):
        raise DataError(f"{token_file} is damaged")
    vocabulary = Vocabulary.from_json(header["vocabulary"])
    tokens = np.memmap(token_file, vocabulary.dtype, "r", shape=(sum(header["lengths"]),))
    return np.split(tokens, list(accumulate(header["lengths"]))[:-1]), vocabulary


def _checksum(content: dict[str, Any], token_file: Path) -> str:
    """Checksum of everything in a cache entry, so that no change stays unnoticed."""
    return hashlib.sha256(f"{json.dumps(content, sort_keys=True)} {digest_of(token_file)}".encode()).hexdigest()


def _key(splits: list[Text], level: str) -> str:
    """Name of the cache entry: it depends on every byte of the splits and on all that determines their tokens."""
    key = hashlib.sha256(f"{CACHE_FORMAT} {level} {[len(text) for text in splits]}".encode())
    for text in splits:
        for block in _blocks(text, "byte"):
            key.update(block)
    return key.hexdigest()[:32]


def _write_tokens(splits: list[Text], vocabulary: Vocabulary, path: Path) -> list[int]:
    """Write the tokens of all splits one after the other; return the number of tokens of each."""
    lengths = []
    with atomic_write(path) as file:
        for text in splits:
            blocks = (vocabulary.encode(block) for block in _blocks(text, vocabulary.level))
            lengths.append(sum(file.write(ids.tobytes()) for ids in blocks) // vocabulary.dtype.itemsize)
    return lengths
