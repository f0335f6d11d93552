"""Cutting, tokenising and the token cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rhn_datasets import tokens
from rhn_datasets.tokens import build_vocabulary, cut, read_text, tokenise
from rhn_datasets.vocabulary import split_symbols

LEVELS = ["word", "char", "byte"]
level_strategy = st.sampled_from(LEVELS)
text_strategy = st.text(alphabet="ab é☃😀\n\t", min_size=1, max_size=60)


def as_text(content: str) -> tokens.Text:
    return np.frombuffer(content.encode(), np.uint8)


@given(text_strategy, level_strategy, st.integers(0, 200))
def test_no_symbol_is_broken_by_a_cut(content: str, level: str, position: int) -> None:
    text = as_text(content)
    place = cut(text, position, level)
    assert min(position, len(text)) <= place <= len(text)
    before, after = (split_symbols(part.tobytes(), level) for part in (text[:place], text[place:]))
    assert [*before, *after] == list(split_symbols(text.tobytes(), level))


@given(content=text_strategy, level=level_strategy, block=st.integers(1, 20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tokens_do_not_depend_on_the_pieces_in_which_they_were_read(
    content: str, level: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = [as_text("a b\n" + content), as_text(content), as_text("c ☃")]
    whole, vocabulary = tokenise(splits, level, tmp_path)
    monkeypatch.setattr(tokens, "BLOCK", block)
    in_pieces, same_vocabulary = tokenise(splits, level, tmp_path)
    assert same_vocabulary == vocabulary
    for one, other in zip(whole, in_pieces, strict=True):
        np.testing.assert_array_equal(one, other)
    monkeypatch.undo()


def test_words_are_ordered_by_count_and_then_by_name() -> None:
    splits = [as_text("b a\nb c a b\n"), as_text("a\n"), as_text("b\n")]
    assert build_vocabulary(splits, "word").symbols == ("b", "<eos>", "a", "c")


@pytest.mark.parametrize(
    ("level", "others", "symbols"),
    [
        ("word", ("b a", "a"), ("b", "a")),
        ("word", ("b z", "a"), ("b", "a", "<unk>")),
        ("char", ("b", " "), (" ", "a", "b")),
        ("char", ("b", "☃"), (" ", "a", "b", "<unk>")),
        ("byte", ("A", "é"), (" ", "A", "a", "b", "\xa9", "\xc3")),
    ],
)
def test_unk_is_added_only_where_it_is_needed(level: str, others: tuple[str, str], symbols: tuple[str, ...]) -> None:
    splits = [as_text("b a b"), *map(as_text, others)]
    assert build_vocabulary(splits, level).symbols == symbols


def test_an_unk_of_the_training_text_serves_for_unseen_words() -> None:
    splits = [as_text("a a <unk>"), as_text("a new"), as_text("a")]
    (_, valid, _), vocabulary = tokenise(splits, "word", Path("unused"))
    assert vocabulary.symbols == ("a", "<unk>")
    np.testing.assert_array_equal(valid, [0, 1])


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every corpus counts as a large one."""
    monkeypatch.setattr(tokens, "LARGE", 0)


@pytest.mark.parametrize("level", LEVELS)
def test_the_cache_gives_the_same_tokens_memory_mapped(
    level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = [as_text("some text é\n" * 30), as_text("some more text"), as_text("text ☃")]
    expected, vocabulary = tokenise(splits, level, tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(tokens, "LARGE", 0)
    for _ in range(2):
        found, found_vocabulary = tokenise(splits, level, tmp_path)
        assert found_vocabulary == vocabulary
        for one, other in zip(found, expected, strict=True):
            assert isinstance(one, np.memmap)
            assert not one.flags.writeable
            assert not other.flags.writeable
            assert one.dtype == other.dtype == vocabulary.dtype
            np.testing.assert_array_equal(one, other)
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".tokens"}


@pytest.mark.usefixtures("cached")
def test_the_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = [as_text("a b"), as_text("a"), as_text("b")]
    tokenise(splits, "char", tmp_path)
    monkeypatch.setattr(tokens, "build_vocabulary", None)
    tokenise(splits, "char", tmp_path)


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("level", LEVELS)
def test_another_text_or_level_or_split_never_meets_the_cache_of_this_one(level: str, tmp_path: Path) -> None:
    tokenise([as_text("a b a"), as_text("a b"), as_text("b")], level, tmp_path)
    (train, _, _), vocabulary = tokenise([as_text("a b b"), as_text("a b"), as_text("b")], level, tmp_path)
    assert vocabulary.decode(train) == "a b b"
    (train, _, _), vocabulary = tokenise([as_text("a b "), as_text("aa b"), as_text("b")], level, tmp_path)
    assert vocabulary.decode(train).strip() == "a b"
    (train, _, _), vocabulary = tokenise([as_text("a b a"), as_text("a b"), as_text("b")], "char", tmp_path)
    assert vocabulary.level == "char"
    assert vocabulary.decode(train) == "a b a"


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("suffix", [".json", ".tokens"])
@pytest.mark.parametrize("content", [b"", b"{}", None])
def test_a_damaged_cache_is_rebuilt(suffix: str, content: bytes | None, tmp_path: Path) -> None:
    splits = [as_text("some text"), as_text("some"), as_text("text")]
    tokenise(splits, "char", tmp_path)
    (file,) = tmp_path.glob(f"*{suffix}")
    file.unlink() if content is None else file.write_bytes(content)
    (train, _, test), vocabulary = tokenise(splits, "char", tmp_path)
    assert vocabulary.decode(train) == "some text"
    assert vocabulary.decode(test) == "text"


@pytest.mark.usefixtures("cached")
def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(tokens.DataError, match=r"cannot write .*file.*: "):
        tokenise([as_text("a b"), as_text("a"), as_text("b")], "char", tmp_path / "file")


def test_files_that_are_empty_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(tokens.DataError, match="empty is empty"):
        read_text(tmp_path / "empty")
    with pytest.raises(tokens.DataError, match=r"cannot read .*nowhere: No such file"):
        read_text(tmp_path / "nowhere")


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("suffix", [".json", ".tokens"])
def test_no_changed_byte_of_the_cache_gives_another_text(suffix: str, tmp_path: Path) -> None:
    splits = [as_text("some text with symbols"), as_text("some"), as_text("text")]
    tokenise(splits, "char", tmp_path)
    (file,) = tmp_path.glob(f"*{suffix}")
    content = file.read_bytes()
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        (train, _, _), vocabulary = tokenise(splits, "char", tmp_path)
        assert vocabulary.decode(train) == "some text with symbols"
