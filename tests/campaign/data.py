"""Hostile texts, archives and caches: what was meant comes out, or one DataError; and nothing lands outside."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
from bad_server import Server, serving
from tally import Limit, Tally

from rhn_datasets import DataError, download, load_corpus, tokens, windows
from rhn_datasets.download import extract, fetch

LEVELS = ("word", "char", "byte")
PIECES = (b"a", b" ", b"\n", b"\t", b"\0", b"\xff", b"\xed\xa0\x80", b"\xc3", "é".encode(), "☃".encode(), b"<unk>")
MORE_PIECES = (b"<eos>", b"word ", b"\r\n", "\u2028".encode(), "\ufeff".encode(), "🦊".encode(), b"\x85", b"\xc2\xa0")
FAULTS = (
    *("404", "503", "truncated", "dropped", "no ranges", "endless", "length abc", "length -1", "length 7"),
    *("length " + "9" * 400, "bad redirect", "other range", "packed", "slow"),
)


def try_corpora(seed: int, tries: int, folder: Path, limit: Limit) -> Tally:
    """Load texts of every odd kind."""
    draw, tally = random.Random(seed), Tally("hostile texts")
    file = folder / "text"
    for _ in limit.tries(tries):
        pieces = draw.choice([PIECES, MORE_PIECES, (*PIECES, *MORE_PIECES), (draw.randbytes(40), b"ab ")])
        content = b"".join(draw.choices(pieces, k=draw.choice([0, 1, 3, 19, 40, 500, 500])))
        file.write_bytes(content)
        level, sizes = draw.choice(LEVELS), (draw.choice([0, 1, 2, 50]), draw.choice([-1, 1, 3, 10**9]))
        try:
            corpus = load_corpus("text", file, level=level, cache_path=folder / "cache")
            decoded = [corpus.vocabulary.decode(part) for part in (corpus.train, corpus.valid, corpus.test)]
            with suppress(DataError):
                list(windows(corpus.train, *sizes, drop_last=draw.random() < 0.5))
        except DataError:
            tally.survived("DataError")
        except Exception as error:
            tally.failed(f"{type(error).__name__}: {error}: {level} {sizes} {content[:100]!r}")
        else:
            # What only validation and test have reads <unk> there, so the training part is what can be compared.
            whole = content.decode("utf-8", errors="replace")
            is_right = level == "word" or whole.startswith(decoded[0].rstrip("\ufffd"))
            tally.survived("the text itself") if is_right else tally.failed(f"other text: {level} {content[:100]!r}")
    return tally


def try_archives(seed: int, tries: int, folder: Path, limit: Limit) -> Tally:
    """Unpack archives that leave their folder, hold other things, or are damaged."""
    draw, tally = random.Random(seed), Tally("hostile archives")
    body = draw.randbytes(3000)
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    inside = folder / "inside" / "further"
    inside.mkdir(parents=True)
    for number in limit.tries(tries):
        archive = inside / draw.choice(["a.zip", "a.tgz"])
        content = bytearray((_zip if archive.suffix == ".zip" else _tar)(draw, body))
        if number % 3 == 0:
            for _ in range(draw.randrange(1, 6)):
                content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        archive.write_bytes(content[: draw.randrange(len(content))] if number % 7 == 0 else content)
        try:
            extract(archive, "data/corpus", inside / "corpus", size=len(body), digest=digest)
        except DataError:
            end = "DataError"
        except Exception as error:
            end = f"{type(error).__name__}: {error}"
        else:
            end = "the file itself" if (inside / "corpus").read_bytes() == body else "another file"
        strange = [
            str(each) for each in folder.rglob("*") if each.is_file() and each.name not in (archive.name, "corpus")
        ]
        if strange or end not in ("DataError", "the file itself"):
            tally.failed(f"{end}, written {strange}: try {number}")
        else:
            tally.survived(end)
        for each in inside.iterdir():
            each.unlink()
    return tally


def try_caches(seed: int, tries: int, folder: Path, limit: Limit) -> Tally:
    """Damage the cached tokens of a corpus."""
    draw, tally = random.Random(seed), Tally("damaged token caches")
    text = np.frombuffer(b"pack my box with five dozen liquor jugs.\n" * 9, np.uint8)
    splits = [text[:200], text[200:300], text[300:]]
    large, tokens.LARGE = tokens.LARGE, 0
    try:
        expected, vocabulary = tokens.tokenise(splits, "char", folder)
        expected = [np.array(part) for part in expected]
        for _ in limit.tries(tries):
            file = draw.choice(sorted(folder.iterdir()))
            content = bytearray(file.read_bytes())
            for _ in range(draw.randrange(1, 4)):
                content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            file.write_bytes(content[: draw.randrange(len(content))] if draw.random() < 0.2 else content)
            try:
                found, symbols = tokens.tokenise(splits, "char", folder)
            except Exception as error:
                tally.failed(f"{type(error).__name__}: {error}")
                continue
            is_same = symbols == vocabulary and all(map(np.array_equal, found, expected))
            tally.survived("the same tokens") if is_same else tally.failed(f"other tokens from a damaged {file.suffix}")
            del found
    finally:
        tokens.LARGE = large
    return tally


def try_downloads(repeats: int, folder: Path, limit: Limit) -> Tally:
    """Every fault of a server, alone and after a dropped connection, with and without a known size."""
    tally = Tally("faults of a server")
    body = bytes(range(256)) * 400
    digest = hashlib.sha256(body).hexdigest()
    largest, download.LARGEST = download.LARGEST, 10 * len(body)
    try:
        with serving() as server:
            server.body = body
            for number in limit.tries(len(FAULTS) * repeats):
                fault = FAULTS[number % len(FAULTS)]
                for before in ([], ["dropped"]):
                    for known in ({"sha256": digest, "size": len(body)}, {"sha256": digest}):
                        place = folder / f"{number}{len(before)}{len(known)}" / "a.zip"
                        server.faults = [*before, fault, fault]
                        _download(server, place, body, known, tally)
    finally:
        download.LARGEST = largest
    return tally


def _download(server: Server, place: Path, body: bytes, known: dict, tally: Tally) -> None:
    try:
        fetch(server.url("a.zip"), place, **known, attempts=2, pause=0.001, longest=1.0)
    except DataError:
        end = "DataError" if not place.exists() else "refused, but there"
    except Exception as error:
        end = f"{type(error).__name__}: {error}"
    else:
        end = "the file itself" if place.read_bytes() == body else "another file"
    part = place.with_name("a.zip.part")
    if part.exists() and part.stat().st_size > 10 * len(body):
        end = f"{part.stat().st_size:,} bytes on the disk"
    if end in ("DataError", "the file itself"):
        tally.survived(end)
    else:
        tally.failed(f"{end}: {server.faults}, {sorted(known)}")


def _zip(draw: random.Random, body: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _names(draw):
            archive.writestr(name, _content(draw, name, body))
    return buffer.getvalue()


def _tar(draw: random.Random, body: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in _names(draw):
            member, content = tarfile.TarInfo(name), _content(draw, name, body)
            member.size = len(content)
            if draw.random() < 0.2:
                member.type = draw.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
                member.linkname, member.size, content = "../../../evil", 0, b""
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _names(draw: random.Random) -> list[str]:
    odd = (
        "../evil",
        "/evil",
        "..\\evil",
        "C:\\evil",
        "data/../../evil",
        "./data/corpus",
        "data/corpus/",
        "\x1b",
        "x" * 90,
    )
    return [*draw.choices(odd, k=draw.randrange(2)), *["data/corpus"] * draw.choice([0, 1, 1, 1])] or ["other"]


def _content(draw: random.Random, name: str, body: bytes) -> bytes:
    return draw.choice([body, body, body, body + b"more", body[1:], bytes(10**7)]) if "corpus" in name else b"evil"
