"""load_corpus of the user's own text, and of the text that Python comes with."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest

from rhn_datasets import DataError, load_corpus


def test_pydoc_comes_from_python_itself() -> None:
    corpus = load_corpus("pydoc")
    text = "".join(topics[name] for name in sorted(topics)).encode()
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [
        round(len(text) * 0.9),
        round(len(text) * 0.95) - round(len(text) * 0.9),
        len(text) - round(len(text) * 0.95),
    ]
    assert corpus.vocabulary.decode(corpus.train[:2000]) == text[:2000].decode()
    assert corpus.metric == "bits per byte"
    assert load_corpus("pydoc", level="word", split=(0.8, 0.1, 0.1)).metric == "perplexity"


@pytest.mark.parametrize("level", ["word", "char", "byte"])
def test_own_text_in_one_file(level: str, tmp_path: Path) -> None:
    content = "one twö three\nfour ☃ six\n" * 40
    (tmp_path / "own.txt").write_text(content, encoding="utf-8")
    corpus = load_corpus("text", tmp_path / "own.txt", level=level, split=(0.5, 0.25, 0.25))
    assert corpus.vocabulary.decode(np.concatenate([corpus.train, corpus.valid, corpus.test])) == content
    assert len(corpus.train) == pytest.approx(2 * len(corpus.valid), abs=3)
    assert corpus.level == level
    assert "<unk>" not in corpus.vocabulary.symbols


@pytest.mark.parametrize("as_folder", [True, False])
def test_own_text_in_three_files(as_folder: bool, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("train.txt", "valid.txt", "test.txt")]
    for file, content in zip(files, ("abcabc", "abz", "ca"), strict=True):
        file.write_text(content)
    corpus = load_corpus("text", tmp_path if as_folder else files)
    assert corpus.vocabulary.symbols == ("a", "b", "c", "<unk>")
    np.testing.assert_array_equal(corpus.valid, [0, 1, 3])
    np.testing.assert_array_equal(corpus.test, [2, 0])
    assert corpus.metric == "bits per character"


def test_own_text_that_is_not_utf8_is_told_of_the_byte_level(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("déjà vu ".encode("latin-1") * 20)
    with pytest.raises(DataError, match=r"latin.txt is not UTF-8 text \(.*\): use level=byte"):
        load_corpus("text", tmp_path / "latin.txt")
    assert len(load_corpus("text", tmp_path / "latin.txt", level="byte").train) == 144


def test_a_text_too_short_for_its_split(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("word")
    with pytest.raises(DataError, match=r"short.txt of 4 bytes is too short to be split"):
        load_corpus("text", tmp_path / "short.txt")
