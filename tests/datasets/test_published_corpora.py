"""load_corpus of the published corpora: what each contains, where it is looked for, and which files are refused."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rhn_datasets
from rhn_datasets import DataError, load_corpus
from rhn_datasets.sources import SOURCES, Member, Source

PTB = Path(__file__).parents[3] / "shared" / "data" / "ptb"

needs_ptb = pytest.mark.skipif(not PTB.is_dir(), reason="the Penn Treebank is licensed text, and not at hand here")

TRAIN, VALID, TEST = b" the cat \n the dog \n", b" a dog \n", b" the cat \n"

PTB_FILES = {"ptb.train.txt": TRAIN, "ptb.valid.txt": VALID, "ptb.test.txt": TEST}

PACKED = {f"simple-examples/data/{name}": content for name, content in PTB_FILES.items()}

ENWIK8 = bytes(range(10, 205)) * 20 + b"\n" * 100  # 4,000 bytes

Pack = Callable[[dict[str, bytes]], bytes]

Hash = Callable[[bytes], str]

WIKITEXT = {part: f" = {part} = \n \n the {part} \n".encode() for part in ("train", "valid", "test")}


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch, sha256: Hash, make_zip: Pack, server: Any) -> None:
    """Small corpora take the place of the published ones, on the local server."""

    def member(path: str, content: bytes) -> Member:
        return Member(path, len(content), f"sha256:{sha256(content)}")

    monkeypatch.setitem(
        SOURCES,
        "ptb",
        Source(server.url("simple-examples.tgz"), tuple(member(path, content) for path, content in PACKED.items())),
    )
    server.body = make_zip({"enwik8": ENWIK8})
    monkeypatch.setitem(
        SOURCES,
        "enwik8",
        Source(server.url("enwik8.zip"), (member("enwik8", ENWIK8),), sha256(server.body), len(server.body)),
    )


@needs_ptb
def test_the_penn_treebank_has_its_published_counts() -> None:
    corpus = load_corpus("ptb", PTB, download=False)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (929_589, 73_760, 82_430)
    assert len(corpus.vocabulary) == 10_000
    assert corpus.vocabulary.symbols[:4] == ("the", "<unk>", "<eos>", "N")
    assert corpus.train.dtype == np.uint16
    assert (corpus.level, corpus.metric) == ("word", "perplexity")
    assert len(np.unique(corpus.train)) == 10_000
    first_line = (PTB / "ptb.test.txt").read_text().splitlines()[0]
    assert corpus.vocabulary.decode(corpus.test[:8]) == first_line.strip() + "\nbut"


@needs_ptb
def test_the_characters_of_the_penn_treebank_have_the_counts_of_others() -> None:
    corpus = load_corpus("ptb_char", PTB, download=False)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (5_017_482, 393_042, 442_423)
    assert (len(corpus.vocabulary), len(np.unique(corpus.test))) == (50, 48)
    assert (corpus.level, corpus.metric) == ("char", "bits per character")
    line = (PTB / "ptb.test.txt").read_text().splitlines()[0]
    assert corpus.vocabulary.decode(corpus.test[:40]).startswith(line.strip().replace(" ", "_") + "\nbut_")


@pytest.mark.usefixtures("sources")
def test_the_characters_are_those_of_the_words_of_a_line_joined(tmp_path: Path, make_tgz: Pack, server: Any) -> None:
    server.body = make_tgz(PACKED)
    corpus = load_corpus("ptb_char", cache_path=tmp_path)
    assert corpus.vocabulary.decode(corpus.train) == "the_cat\nthe_dog\n"
    assert corpus.vocabulary.decode(corpus.valid) == "a_dog\n"
    assert load_corpus("ptb", cache_path=tmp_path, download=False).level == "word"  # the same files


@pytest.fixture(params=["wikitext2", "wikitext103"])
def wikitext(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, make_zip: Pack, server: Any) -> str:
    """The name of a WikiText corpus, of which a small stand-in is on the local server."""
    folder = SOURCES[request.param].folder
    server.body = make_zip({f"{folder}/wiki.{part}.tokens": text for part, text in WIKITEXT.items()})
    members = tuple(
        Member(f"{folder}/wiki.{part}.tokens", None, f"sha1:{hashlib.sha1(text).hexdigest()}")
        for part, text in WIKITEXT.items()
    )
    archive = hashlib.sha256(server.body).hexdigest()
    monkeypatch.setitem(SOURCES, request.param, Source(server.url("w.zip"), members, archive, folder=folder))
    return request.param


def test_wikitext_has_a_line_end_for_every_line(wikitext: str, tmp_path: Path, server: Any) -> None:
    for _ in range(2):
        corpus = load_corpus(wikitext, cache_path=tmp_path)
        assert corpus.vocabulary.decode(corpus.train) == "= train =\n\nthe train\n"
        assert np.count_nonzero(corpus.test == corpus.vocabulary.symbols.index("<eos>")) == 3
        assert (corpus.level, corpus.metric) == ("word", "perplexity")
    assert len(server.ranges) == 1
    assert {file.parent.name for file in tmp_path.rglob("*.tokens")} == {SOURCES[wikitext].folder}


@pytest.mark.parametrize("fault", ["html", "another archive", "another member"])
def test_a_wikitext_that_is_not_the_published_one_is_refused(
    wikitext: str, fault: str, tmp_path: Path, make_zip: Pack, server: Any
) -> None:
    path = f"{SOURCES[wikitext].folder}/wiki.train.tokens"
    whole, server.body = server.body, b"<html>Please log in</html>" if fault == "html" else make_zip({path: b"other"})
    if fault == "another member":
        (tmp_path / SOURCES[wikitext].folder).mkdir()
        (tmp_path / SOURCES[wikitext].folder / "w.zip").write_bytes(server.body)
    with pytest.raises(DataError, match="is not the expected file"):
        load_corpus(wikitext, cache_path=tmp_path)
    if fault != "another member":
        server.body = whole
        assert len(load_corpus(wikitext, cache_path=tmp_path).valid) == 8


def test_a_changed_wikitext_of_the_user_is_refused(wikitext: str, tmp_path: Path) -> None:
    for part, text in WIKITEXT.items():
        (tmp_path / f"wiki.{part}.tokens").write_bytes(text)
    assert len(load_corpus(wikitext, tmp_path, download=False).test) == 8
    (tmp_path / "wiki.test.tokens").write_bytes(b"other")
    with pytest.raises(DataError, match=r"is not the published wiki\.test\.tokens with sha1:"):
        load_corpus(wikitext, tmp_path, download=False)


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize("layout", ["files", "unpacked archive", "archive"])
def test_ptb_is_found_in_every_layout(layout: str, tmp_path: Path, make_tgz: Pack, server: Any) -> None:
    if layout == "archive":
        (tmp_path / "simple-examples.tgz").write_bytes(make_tgz({f"./{path}": text for path, text in PACKED.items()}))
    for name, content in (PTB_FILES if layout == "files" else PACKED if layout != "archive" else {}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    corpus = load_corpus("ptb", tmp_path, cache_path=tmp_path / "cache", download=False)
    assert corpus.vocabulary.symbols == ("<eos>", "the", "cat", "dog", "<unk>")
    np.testing.assert_array_equal(corpus.train, [1, 2, 0, 1, 3, 0])
    np.testing.assert_array_equal(corpus.valid, [4, 3, 0])
    assert (tmp_path / "cache").exists() == (layout == "archive")
    assert server.ranges == []


@pytest.mark.usefixtures("sources")
def test_a_changed_local_file_is_refused(tmp_path: Path) -> None:
    for name, content in PTB_FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "ptb.valid.txt").write_bytes(VALID.upper())
    with pytest.raises(DataError, match=r"ptb.valid.txt is not the published ptb.valid.txt of 8 bytes with sha256:"):
        load_corpus("ptb", tmp_path, download=False)


@pytest.mark.usefixtures("sources")
def test_enwik8_is_downloaded_once_and_split_90_5_5(tmp_path: Path, server: Any) -> None:
    for _ in range(2):
        corpus = load_corpus("enwik8", cache_path=tmp_path / "cache")
        assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (3_600, 200, 200)
        assert len(corpus.vocabulary) == 195
        assert corpus.train.dtype == np.uint8
        assert (corpus.level, corpus.metric) == ("byte", "bits per byte")
        symbols = np.array([ord(symbol) for symbol in corpus.vocabulary.symbols])
        assert (np.diff(symbols) > 0).all()
        assert bytes(symbols[np.concatenate([corpus.train, corpus.valid, corpus.test])].tolist()) == ENWIK8
    assert len(server.ranges) == 1


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize("name", ["enwik8", "enwik8.zip"])
def test_a_local_enwik8_is_used_instead_of_a_download(name: str, tmp_path: Path, server: Any) -> None:
    (tmp_path / name).write_bytes(ENWIK8 if name == "enwik8" else server.body)
    assert len(load_corpus("enwik8", tmp_path, cache_path=tmp_path / "cache").train) == 3_600
    assert server.ranges == []


def test_text8_has_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b" abcdefghijklmnopqrstuvwxyz" * 20
    member = Member("text8", len(content), f"md5:{hashlib.md5(content).hexdigest()}")
    monkeypatch.setitem(SOURCES, "text8", replace(SOURCES["text8"], members=(member,)))
    (tmp_path / "text8").write_bytes(content)
    corpus = load_corpus("text8", tmp_path, download=False)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (486, 27, 27)
    assert "".join(corpus.vocabulary.symbols) == " abcdefghijklmnopqrstuvwxyz"
    assert (corpus.level, corpus.metric) == ("char", "bits per character")


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize("folder", ["here", None])
def test_offline_it_says_which_file_to_put_where(folder: str | None, tmp_path: Path) -> None:
    data_path = None
    if folder:
        data_path = tmp_path / folder
        data_path.mkdir()
    cache = tmp_path / "cache"
    where = f"put enwik8.zip \\(from http://.*/enwik8.zip\\) or enwik8 into {data_path or cache}"
    with pytest.raises(DataError, match=where):
        load_corpus("enwik8", data_path, cache_path=cache, download=False)
    if data_path is None:  # what the message says works
        cache.mkdir()
        (cache / "enwik8").write_bytes(ENWIK8)
        assert len(load_corpus("enwik8", cache_path=cache, download=False).test) == 200


@pytest.mark.usefixtures("sources")
def test_a_failed_download_says_which_file_to_put_where(tmp_path: Path, server: Any) -> None:
    server.faults = ["404"]
    with pytest.raises(DataError, match=f"404 Not Found; or put enwik8.zip .* or enwik8 into {tmp_path}"):
        load_corpus("enwik8", cache_path=tmp_path)


@pytest.mark.usefixtures("sources")
def test_a_server_that_sends_something_else_is_asked_again_next_time(
    tmp_path: Path, make_tgz: Pack, server: Any
) -> None:
    server.body = b"<html>Please log in to this network</html>"
    with pytest.raises(DataError, match=r"cannot read .*simple-examples\.tgz"):
        load_corpus("ptb", cache_path=tmp_path)
    server.body = make_tgz(PACKED)
    assert len(load_corpus("ptb", cache_path=tmp_path).train) == 6


def test_a_data_path_that_is_not_there_is_not_replaced_by_a_download(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data_path=.*typo is not a folder: put simple-examples\.tgz"):
        load_corpus("ptb", tmp_path / "typo")


def test_a_large_corpus_costs_little_memory(tmp_path: Path) -> None:
    """100 MB, as enwik8, from nothing to tokens and back from the cache, in less than 0.3 GB."""
    block = np.random.default_rng(0).integers(50, 255, 1_000_000, dtype=np.uint8).tobytes()
    with (tmp_path / "enwik8").open("wb") as file:
        file.writelines(block for _ in range(100))
    program = """
import dataclasses, sys
from pathlib import Path
from rhn_datasets import load_corpus
from rhn_datasets.files import digest_of
from rhn_datasets.sources import SOURCES

folder = Path(sys.argv[1])
published = SOURCES["enwik8"]
member = dataclasses.replace(published.members[0], digest="sha256:" + digest_of(folder / "enwik8"))
SOURCES["enwik8"] = dataclasses.replace(published, members=(member,))
for _ in range(2):
    corpus = load_corpus("enwik8", folder, cache_path=folder / "cache", download=False)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (90_000_000, 5_000_000, 5_000_000)
    assert len(corpus.vocabulary) == 205
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of the resident memory of one process is read from /proc")
    environment = os.environ | {"PYTHONPATH": str(Path(rhn_datasets.__file__).parents[1])}
    arguments = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    shutil.rmtree(tmp_path)  # 200 MB, which pytest would keep
    assert result.returncode == 0, result.stderr
    kilobytes = int(result.stdout.split()[1])
    assert kilobytes < 300_000  # 155,000 measured: Python, NumPy and 100 MB of mapped pages, which the system may drop


def test_published_checks_are_the_known_ones() -> None:
    """The numbers that others have published for these files: a slip of the keyboard must not change them."""
    assert SOURCES["enwik8"].size == 36_445_475
    assert SOURCES["enwik8"].sha256.startswith("547994d9980ebed1")
    assert SOURCES["text8"].sha256.startswith("a6640522afe85d19")
    assert SOURCES["text8"].members[0] == Member("text8", 10**8, "md5:3bea1919949baf155f99411df5fada7e")
    assert [member.size for member in SOURCES["ptb"].members] == [5_101_618, 399_782, 449_945]
    assert (SOURCES["wikitext2"].sha256 or "").startswith("92675f1d63015c1c")
    assert (SOURCES["wikitext103"].sha256 or "").startswith("242ba0f20b329cfd")
    assert [member.digest[:13] for member in SOURCES["wikitext103"].members] == [
        "sha1:b7497e2d",
        "sha1:c326ac59",
        "sha1:8a5befc5",
    ]
    assert replace(SOURCES["ptb"], url="http://elsewhere/a.tgz").archive == "a.tgz"


@pytest.mark.usefixtures("sources")
def test_another_address_is_asked_where_the_first_has_nothing(
    tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SOURCES["enwik8"]
    monkeypatch.setitem(SOURCES, "enwik8", replace(source, other_urls=(source.url,)))
    server.faults = ["404"]
    assert len(load_corpus("enwik8", cache_path=tmp_path).train) == 3_600
    assert len(server.ranges) == 2


@pytest.mark.parametrize("name", SOURCES)
def test_the_secure_address_is_asked_first(name: str) -> None:
    assert SOURCES[name].url.startswith("https://")
