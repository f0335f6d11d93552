"""The corpora by name: `load_corpus`, and one small loader for each kind of corpus."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from rhn_datasets.files import DataError, default_cache, expanded
from rhn_datasets.sources import SOURCES, obtain
from rhn_datasets.tokens import Text, Tokens, cut, read_text, tokenise
from rhn_datasets.vocabulary import Vocabulary

DataPath = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Fractions = tuple[float, float, float]

METRICS = {"word": "perplexity", "char": "bits per character", "byte": "bits per byte"}
DEFAULT_SPLIT: Fractions = (0.9, 0.05, 0.05)
SPLIT_FILES = ("train.txt", "valid.txt", "test.txt")


@dataclass(frozen=True, eq=False)
class Corpus:
    """Train, valid and test tokens, each (n,) of the smallest unsigned type and read-only, and their vocabulary."""

    name: str
    train: Tokens
    valid: Tokens
    test: Tokens
    vocabulary: Vocabulary
    level: str  # "word", "char" or "byte"

    @property
    def metric(self) -> str:
        """The unit of scores on this corpus: "perplexity", "bits per character" or "bits per byte"."""
        return METRICS[self.level]


@dataclass(frozen=True)
class _Request:
    """The checked arguments of `load_corpus`."""

    name: str
    data_path: DataPath | None
    level: str
    split: Fractions
    cache: Path | None  # None: the default, and there may be none
    download: bool

    def refuse_split(self, reason: str) -> None:
        if self.split != DEFAULT_SPLIT:
            raise DataError(f"split={self.split} has no meaning for {self.name}: {reason}")


@dataclass(frozen=True)
class CorpusKind:
    """A kind of corpus: its levels, and how its three texts are read."""

    levels: tuple[str, ...]  # the first is the default
    read: Callable[[_Request], list[Text]]


def load_corpus(
    name: str,
    data_path: DataPath | None = None,
    *,
    level: str | None = None,
    split: Sequence[float] = DEFAULT_SPLIT,
    cache_path: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Corpus:
    """Load a corpus, ready for batching.

    Args:
        name: one of CORPORA: ptb, enwik8, text8, ptb_char (made from the files of ptb), wikitext2, wikitext103, text
            (your own text), pydoc (the language reference that comes with CPython).
        data_path: for a published corpus, the folder with its files or their archive, which is searched before a
            download. For text, one file, a folder with train.txt, valid.txt and test.txt, or a sequence of three files.
        level: "word", "char" or "byte", if the corpus leaves a choice; None is "char" for text, "byte" for pydoc.
        split: fractions of the bytes for train, valid and test, if one text is split.
        cache_path: folder for downloads and for the tokens of large corpora; None is rhn_datasets in $XDG_CACHE_HOME or
            ~/.cache.
        download: whether the network may be used.

    Raises:
        DataError: with one sentence for the user.
    """
    if not isinstance(name, str) or name not in CORPORA:
        close = get_close_matches(str(name), CORPORA, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise DataError(f"there is no corpus {name!r}{hint}; known names: {', '.join(CORPORA)}")
    kind = CORPORA[name]
    level = kind.levels[0] if level is None else level
    if level not in kind.levels:
        raise DataError(f"level={level!r} is not accepted for {name}: expected {' or '.join(kind.levels)}")
    if not _are_fractions(split):
        raise DataError(
            f"split={split!r} is not accepted: expected three positive fractions for train, valid and test that sum to"
            " 1"
        )
    train_part, valid_part, test_part = split
    try:
        cache = None if cache_path is None else expanded("cache_path", cache_path)
        request = _Request(name, data_path, level, (train_part, valid_part, test_part), cache, download)
        (train, valid, test), vocabulary = tokenise(kind.read(request), level, cache)
    except UnicodeDecodeError as error:
        raise DataError(f"{_shown(data_path) or name} is not UTF-8 text ({error.reason}): use level=byte") from error
    except OSError as error:
        raise DataError(f"{error.filename or _shown(data_path) or name}: {error.strerror or error}") from error
    except MemoryError as error:
        raise DataError(f"this machine has too little memory for {_shown(data_path) or name}") from error
    return Corpus(name, train, valid, test, vocabulary, level)


def _read_published(request: _Request) -> list[Text]:
    """PTB and WikiText, published as three files; enwik8 and text8, always split into 90, 5 and 5 million bytes."""
    files = _published_files(request.name, request)
    return [read_text(file) for file in files] if len(files) == 3 else _split(read_text(files[0]), request)


def _read_ptb_char(request: _Request) -> list[Text]:
    """The Penn Treebank by characters, made from its word files: the words of a line joined by `_`, then a line end.

    `<unk>` counts as the five characters < u n k >, and N stands for a number, as in the files. The line end takes the
    place of the `<eos>` of others: one symbol per line.
    """
    return [_joined_words(read_text(file)) for file in _published_files("ptb", request)]


def _joined_words(text: Text) -> Text:
    lines = text.tobytes().splitlines()
    return np.frombuffer(b"".join(b"_".join(line.split()) + b"\n" for line in lines), np.uint8)


def _published_files(source: str, request: _Request) -> list[Path]:
    """The files of `source`, checked."""
    request.refuse_split("its split is fixed")
    path = request.data_path
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise DataError(f"data_path={path!r} is not accepted: expected one folder for {request.name}")
    folder = None if path is None else expanded("data_path", path)
    return obtain(SOURCES[source], folder, request.cache or default_cache(), request.download)


def _read_pydoc(request: _Request) -> list[Text]:
    """The Python language reference: the text behind help("for"), topic by topic."""
    if request.data_path is not None:
        raise DataError("data_path has no meaning for pydoc: its text comes with Python")
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError("this Python comes without pydoc_data.topics: choose another corpus than pydoc") from error
    return _split(np.frombuffer("".join(topics[name] for name in sorted(topics)).encode(), np.uint8), request)


def _read_own(request: _Request) -> list[Text]:
    """The user's own text."""
    path = request.data_path
    if path is None:
        raise DataError(
            "the corpus text needs data_path: one file, a folder with train.txt, valid.txt and test.txt, or three files"
        )
    if isinstance(path, (str, os.PathLike)):
        place = expanded("data_path", path)
        if place.is_file():
            return _split(read_text(place), request)
        files = [place / name for name in SPLIT_FILES]
    else:
        files = [expanded("data_path", file) for file in path] if isinstance(path, Sequence) else []
    if len(files) != 3 or not all(file.is_file() for file in files):
        missing = ", ".join(str(file) for file in files if not file.is_file())
        raise DataError(
            f"data_path={_shown(path)} is not accepted: expected one file, a folder with {', '.join(SPLIT_FILES)}, or"
            " three files" + (f": there is no {missing}" if missing else "")
        )
    request.refuse_split("train, valid and test are files of their own")
    return [read_text(file) for file in files]


def _split(text: Text, request: _Request) -> list[Text]:
    """Cut one text at the fractions of its bytes, or at the first place after them that breaks no symbol."""
    train, valid, _ = request.split
    first, second = (cut(text, round(len(text) * part), request.level) for part in (train, train + valid))
    splits = [text[:first], text[first:second], text[second:]]
    if not all(len(part) for part in splits):
        name = _shown(request.data_path) or request.name
        raise DataError(f"{name} of {len(text)} bytes is too short to be split into {request.split}")
    return splits


def _are_fractions(split: object) -> bool:
    if not isinstance(split, Sequence) or len(split) != 3:
        return False
    if not all(isinstance(part, (int, float)) and not isinstance(part, bool) and part > 0 for part in split):
        return False
    return math.isclose(sum(split), 1)


def _shown(data_path: DataPath | None) -> str:
    """The path for messages; "" for None."""
    if isinstance(data_path, (str, os.PathLike)):
        return os.fspath(data_path)
    return "" if data_path is None else repr(data_path)


CORPORA: Mapping[str, CorpusKind] = {
    "ptb": CorpusKind(("word",), _read_published),
    "enwik8": CorpusKind(("byte",), _read_published),
    "text8": CorpusKind(("char",), _read_published),
    "ptb_char": CorpusKind(("char",), _read_ptb_char),
    "wikitext2": CorpusKind(("word",), _read_published),
    "wikitext103": CorpusKind(("word",), _read_published),
    "text": CorpusKind(("char", "word", "byte"), _read_own),
    "pydoc": CorpusKind(("byte", "char", "word"), _read_pydoc),
}
