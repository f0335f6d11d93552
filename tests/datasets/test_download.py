"""Downloads and archives, each broken in every way that we could think of."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

import rhn_datasets
from rhn_datasets import DataError, download
from rhn_datasets.download import extract, fetch

BODY = bytes(range(256)) * 1000
Pack = Callable[[dict[str, bytes]], bytes]
Hash = Callable[[bytes], str]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "corpus.zip"


def get(server: Any, path: Path, digest: str) -> Path:
    server.body = server.body or BODY
    return fetch(server.url("corpus.zip"), path, sha256=digest, size=len(BODY), attempts=3, pause=0.01)


def test_a_download_is_checked_and_not_repeated(server: Any, path: Path, sha256: Hash) -> None:
    for _ in range(2):
        assert get(server, path, sha256(BODY)).read_bytes() == BODY
    assert server.ranges == [None]
    assert {file.name for file in path.parent.iterdir()} <= {"corpus.zip", "corpus.zip.lock"}


def test_a_dropped_connection_is_resumed(server: Any, path: Path, sha256: Hash) -> None:
    server.faults = ["dropped", "dropped"]
    assert get(server, path, sha256(BODY)).read_bytes() == BODY
    assert server.ranges[0] is None
    first, second = (int(asked.removeprefix("bytes=").removesuffix("-")) for asked in server.ranges[1:])
    assert 0 < first <= len(BODY) // 2 < second < len(BODY)


def test_a_connection_dropped_without_an_exception_is_noticed(
    server: Any, path: Path, sha256: Hash, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_pieces = [b"", BODY[:1000]]
    read = urllib3.HTTPResponse.read1
    monkeypatch.setattr(
        urllib3.HTTPResponse,
        "read1",
        lambda *given, **more: first_pieces.pop() if first_pieces else read(*given, **more),
    )
    assert get(server, path, sha256(BODY)).read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000-"]


def test_the_next_run_resumes(server: Any, path: Path, sha256: Hash) -> None:
    server.faults = ["dropped", "503", "503"]
    with pytest.raises(DataError, match=r"cannot download .*: the server answers 503 .*, 3 times"):
        get(server, path, sha256(BODY))
    assert not path.exists()
    assert get(server, path, sha256(BODY)).read_bytes() == BODY
    assert server.ranges[-1] == server.ranges[1] is not None


def test_a_complete_part_only_needs_its_name(server: Any, path: Path, sha256: Hash) -> None:
    path.parent.mkdir()
    path.with_name("corpus.zip.part").write_bytes(BODY)
    assert get(server, path, sha256(BODY)).read_bytes() == BODY
    assert server.ranges == []


def test_a_server_that_cannot_resume_sends_all_again(server: Any, path: Path, sha256: Hash) -> None:
    server.faults = ["dropped", "no ranges"]
    assert get(server, path, sha256(BODY)).read_bytes() == BODY


@pytest.mark.parametrize("leftover", [b"of another file", BODY + b"and more", b"x" * len(BODY)])
def test_a_leftover_part_of_another_file_is_overcome(server: Any, path: Path, sha256: Hash, leftover: bytes) -> None:
    path.parent.mkdir()
    path.with_name("corpus.zip.part").write_bytes(leftover)
    assert get(server, path, sha256(BODY)).read_bytes() == BODY


def test_a_part_longer_than_the_file_is_overcome_without_a_known_size(server: Any, path: Path) -> None:
    server.body = BODY
    path.parent.mkdir()
    path.with_name("corpus.zip.part").write_bytes(BODY + b"and more")
    assert fetch(server.url("corpus.zip"), path, pause=0.01).read_bytes() == BODY


def test_a_truncated_file_is_refused(server: Any, path: Path, sha256: Hash) -> None:
    server.faults = ["truncated"]
    with pytest.raises(DataError, match="is not the expected file: it has 128,000 bytes instead of 256,000"):
        get(server, path, sha256(BODY))
    assert not path.exists()
    assert get(server, path, sha256(BODY)).read_bytes() == BODY


def test_a_wrong_hash_is_refused(server: Any, path: Path, sha256: Hash) -> None:
    server.body = BODY[::-1]
    with pytest.raises(DataError, match=f"its sha256 is {sha256(BODY[::-1])} instead of {sha256(BODY)}"):
        get(server, path, sha256(BODY))
    assert not path.exists()
    assert not path.with_name("corpus.zip.part").exists()


def test_a_missing_file_is_not_asked_for_again(server: Any, path: Path, sha256: Hash) -> None:
    server.faults = ["404"]
    with pytest.raises(DataError, match=r"cannot download http://.*/corpus.zip: the server answers 404 Not Found"):
        get(server, path, sha256(BODY))
    assert len(server.ranges) == 1


def test_no_server_at_all(server: Any, path: Path) -> None:
    url = server.url("corpus.zip")
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match=r"cannot download .*: the connection failed .*, 2 times"):
        fetch(url, path, attempts=2, pause=0.01)


def test_a_full_disk_is_one_sentence_and_the_download_resumable(
    server: Any, path: Path, sha256: Hash, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = Path.open

    def open_on_full_disk(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = open_file(self, mode, *args, **kwargs)
        if self.suffix == ".part" and mode != "rb":
            write = file.write

            class Full:
                def __enter__(self) -> Full:
                    return self

                def __exit__(self, *_: object) -> None:
                    file.close()

                def write(self, block: bytes) -> None:
                    if file.tell() > 100_000:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    write(block)

            return Full()
        return file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_on_full_disk)
        with pytest.raises(DataError, match=r"cannot write .*corpus.zip: No space left on device"):
            get(server, path, sha256(BODY))
    assert not path.exists()
    assert get(server, path, sha256(BODY)).read_bytes() == BODY
    assert server.ranges[-1] is not None


def test_two_processes_at_once_download_once(server: Any, path: Path, sha256: Hash) -> None:
    server.body = BODY
    server.delay = 0.5  # so that the second one arrives while the first one is waiting for its answer
    command = (
        "import sys; from pathlib import Path; from rhn_datasets.download import fetch;"
        "fetch(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(rhn_datasets.__file__).parents[1])}
    arguments = [sys.executable, "-c", command, server.url("corpus.zip"), str(path), sha256(BODY)]
    processes = [subprocess.Popen(arguments, env=environment) for _ in range(2)]
    assert [process.wait(timeout=30) for process in processes] == [0, 0]
    assert path.read_bytes() == BODY
    assert server.ranges == [None]


def test_missing_tools_are_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(DataError, match="downloading needs requests: pip install"):
        fetch("http://127.0.0.1:1/corpus.zip", path)


@pytest.fixture(params=["corpus.zip", "corpus.tgz"])
def pack(request: pytest.FixtureRequest, tmp_path: Path, make_zip: Pack, make_tgz: Pack) -> Callable[..., Path]:
    def write(members: dict[str, bytes], damage: Callable[[bytes], bytes] = bytes) -> Path:
        archive = tmp_path / str(request.param)
        archive.write_bytes(damage((make_zip if archive.suffix == ".zip" else make_tgz)(members)))
        return archive

    return write


def unpack(archive: Path, digest: str) -> Path:
    file = archive.parent / "unpacked" / "corpus"
    extract(archive, "data/corpus", file, size=len(BODY), digest=f"sha256:{digest}")
    return file


@pytest.mark.parametrize("name", ["data/corpus", "./data/corpus"])
def test_a_member_is_unpacked(pack: Callable[..., Path], sha256: Hash, name: str) -> None:
    assert unpack(pack({"readme": b"", name: BODY}), sha256(BODY)).read_bytes() == BODY


@pytest.mark.parametrize("name", ["../evil", "/evil", "data/../../evil", "..\\evil", "C:\\evil"])
def test_an_archive_that_leaves_its_folder_is_refused(pack: Callable[..., Path], sha256: Hash, name: str) -> None:
    archive = pack({"data/corpus": BODY, name: b"evil"})
    with pytest.raises(DataError, match=r"is refused: its member .*evil' lies outside its own folder"):
        unpack(archive, sha256(BODY))
    assert [file for file in archive.parent.rglob("*") if file.is_file()] == [archive]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"other": BODY}, "has no member data/corpus"),
        ({"data/corpus": BODY + b"more"}, "is not the expected file of 256,000 bytes with sha256:"),
        ({"data/corpus": BODY[1:]}, "is not the expected file of 256,000 bytes"),
        ({"data/corpus": BODY[::-1]}, "is not the expected file of 256,000 bytes"),
    ],
)
def test_a_wrong_member_is_refused(
    pack: Callable[..., Path], sha256: Hash, members: dict[str, bytes], message: str
) -> None:
    archive = pack(members)
    with pytest.raises(DataError, match=message):
        unpack(archive, sha256(BODY))
    assert list((archive.parent / "unpacked").iterdir()) == []


def test_a_member_that_never_ends_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: object) -> Iterator[bytes]:
        yield from [BODY, b"and more"]
        pytest.fail("read on after more than could be right")

    monkeypatch.setattr(download, "_member_blocks", endless)
    with pytest.raises(DataError, match="is not the expected file"):
        unpack(tmp_path / "bomb.zip", "")


def test_a_member_of_unknown_size_does_not_fill_the_disk(
    pack: Callable[..., Path], sha256: Hash, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, file = pack({"data/corpus": BODY}), Path("unpacked") / "corpus"
    extract(archive, "data/corpus", archive.parent / file, size=None, digest=f"sha256:{sha256(BODY)}")
    monkeypatch.setattr(download, "LARGEST_MEMBER", len(BODY) - 1)
    with pytest.raises(DataError, match="is not the expected file with sha256:"):
        extract(archive, "data/corpus", archive.parent / file, size=None, digest=f"sha256:{sha256(BODY)}")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"<html>not an archive</html>",
        lambda content: content[:100] + b"x" * 50 + content[150:],
        lambda content: b"",
    ],
)
def test_a_damaged_archive_is_refused(
    pack: Callable[..., Path], sha256: Hash, damage: Callable[[bytes], bytes]
) -> None:
    archive = pack({"data/corpus": BODY}, damage)
    with pytest.raises(DataError, match=r"cannot read .*corpus\.(zip|tgz): "):
        unpack(archive, sha256(BODY))
    assert list((archive.parent / "unpacked").iterdir()) == []


def test_a_server_that_never_ends_is_cut_off(server: Any, path: Path, sha256: Hash) -> None:
    server.faults = ["endless"]
    with pytest.raises(DataError, match="is not the expected file: it has more than 256,000 bytes"):
        get(server, path, sha256(BODY))
    assert list(path.parent.glob("*.part")) == []


def test_a_file_of_unknown_size_is_cut_off_too(server: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "LARGEST", 300_000)
    server.body, server.faults = BODY, ["endless"]
    with pytest.raises(DataError, match="it has more than 300,000 bytes"):
        fetch(server.url("corpus.zip"), path, pause=0.01)


def test_a_server_that_sends_hardly_anything_is_left(server: Any, path: Path, sha256: Hash) -> None:
    server.body, server.faults = BODY, ["slow"]
    with pytest.raises(DataError, match="it takes too long"):
        fetch(server.url("corpus.zip"), path, sha256=sha256(BODY), size=len(BODY), longest=0.3)
    assert get(server, path, sha256(BODY)).read_bytes() == BODY  # and goes on


@pytest.mark.parametrize("fault", ["length abc", "length -1", "bad redirect", "other range"])
def test_nonsense_of_a_server_is_overcome(server: Any, path: Path, sha256: Hash, fault: str) -> None:
    server.faults = ["dropped", fault]
    assert get(server, path, sha256(BODY)).read_bytes() == BODY


def test_what_is_sent_packed_is_not_unpacked(server: Any, path: Path, sha256: Hash) -> None:
    server.faults = ["packed"] * 3
    with pytest.raises(DataError, match=r"is not the expected file: it has [0-9,]+ bytes instead of 256,000"):
        get(server, path, sha256(BODY))
