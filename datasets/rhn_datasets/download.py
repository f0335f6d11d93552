"""Downloads a file over HTTP, checked and resumable, and extracts members of an archive safely."""

from __future__ import annotations

import os
import re
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

from rhn_datasets.files import DataError, atomic_write, digest_of

BLOCK = 1 << 16  # bytes per read
TIMEOUT = (10.0, 60.0)  # seconds to connect, and to wait for the next bytes
TRY_LATER = {408, 425, 429}  # HTTP status codes that, like 5xx, may be gone in a moment
LARGEST = 1 << 29  # bytes of a file of unknown size, from which on it cannot be the right one
LARGEST_MEMBER = 1 << 30  # the same for a file inside an archive: WikiText-103 unpacks to more than half of it
LONGEST = 3 * 3600.0  # seconds of a download in all

# What zipfile and tarfile raise for archives that are truncated, overwritten, encrypted or of an unknown kind.
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError, KeyError)


class _TransferError(Exception):
    """The transfer ended early. The part file holds what has arrived, and another attempt may finish it."""


def fetch(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    attempts: int = 4,
    pause: float = 1.0,
    longest: float = LONGEST,
) -> Path:
    """Download `url` to `path`, unless `path` exists; `path` never holds an incomplete or unchecked file.

    The part of the file that has arrived is kept in `path`.part. After a dropped connection, the transfer is resumed up
    to `attempts` times, with pauses of `pause`, 2 * `pause`, … seconds; the next call resumes it too. A second process
    waits for the first one. At most `size` bytes (`LARGEST` if the size is not known) are received, within `longest`
    seconds.

    Raises:
        DataError: the server, the connection, the disk or the check (`sha256`, `size` in bytes) fails.
    """
    try:
        import requests  # noqa: F401  (needed further down; to be missed before anything is touched)
        import tqdm  # noqa: F401
        from filelock import FileLock
    except ImportError as error:
        raise DataError(f"downloading needs {error.name}: pip install requests tqdm filelock") from error

    part = path.with_name(path.name + ".part")
    until = time.monotonic() + longest
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if path.is_file() and _fault(path, sha256, size) is None:
                return path
            resumed = part.exists()
            _download(url, part, size, attempts, pause, until)
            if resumed and _fault(part, sha256, size):  # perhaps the old part belonged to another file
                part.unlink()
                _download(url, part, size, attempts, pause, until)
            if fault := _fault(part, sha256, size):
                part.unlink()
                raise DataError(f"{url} is not the expected file: {fault}")
            part.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def extract(archive: Path, member: str, destination: Path, *, size: int | None, digest: str) -> None:
    """Write one member of a zip or tar.gz archive to `destination`, atomically, if it has this size and digest.

    Args:
        archive: a zip or tar.gz file.
        member: name of the member in the archive.
        destination: path of the extracted file.
        size: size in bytes; None if it is not known, and then at most `LARGEST_MEMBER` bytes are extracted.
        digest: "sha256:<hexadecimal>", "sha1:<hexadecimal>" or "md5:<hexadecimal>".

    Raises:
        DataError: the archive is damaged, has no such member, has other content under this name, or has a member
            outside its own folder.
    """
    with atomic_write(destination) as file:
        copied = 0
        for block in _member_blocks(archive, member):
            copied += len(block)
            if copied > (LARGEST_MEMBER if size is None else size):
                break  # never fill the disk with what cannot be right
            file.write(block)
        file.flush()
        algorithm, _, expected = digest.partition(":")
        if size not in (None, copied) or digest_of(Path(file.name), algorithm) != expected:
            of_size = "" if size is None else f"of {size:,} bytes "
            raise DataError(f"{member} in {archive} is not the expected file {of_size}with {digest}")


def _download(url: str, part: Path, size: int | None, attempts: int, pause: float, until: float) -> None:
    """Transfer `url` into `part`, resuming as often as needed and allowed."""
    for attempt in range(attempts):
        if size is not None and part.exists() and part.stat().st_size >= size:
            return
        if attempt > 0:
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            _transfer(url, part, LARGEST if size is None else size, until)
            return
        except _TransferError as error:
            reason = error
    raise DataError(f"cannot download {url}: {reason}, {attempts} times")


def _transfer(url: str, part: Path, most: int, until: float) -> None:
    """Request once what `part` does not hold yet, and append it: at most `most` bytes in total, not after `until`."""
    import requests
    from tqdm import tqdm
    from urllib3.exceptions import HTTPError  # urllib3 is what requests itself reads with

    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            status = response.status_code
            if status == 416:  # the server's file ends before our part does
                part.unlink()
                raise _TransferError("the server cannot resume")
            if status >= 500 or status in TRY_LATER:
                raise _TransferError(f"the server answers {status} {response.reason}")
            if status >= 400:
                raise DataError(f"cannot download {url}: the server answers {status} {response.reason}")
            if status != 206:  # the whole file comes, whatever we have
                have = 0
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                part.unlink(missing_ok=True)
                raise _TransferError("the server sent another piece than the requested one")
            length = response.headers.get("Content-Length", "")
            total = have + int(length) if re.fullmatch("[0-9]{1,15}", length) else None
            with (
                part.open("ab" if have else "wb") as file,
                tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem, disable=None) as bar,
            ):
                # What has arrived, as it was sent: never unpacked, and never waited for until a block is full.
                while block := response.raw.read1(BLOCK, decode_content=False):
                    if time.monotonic() > until:
                        raise DataError(f"cannot download {url}: it takes too long; the next attempt will continue")
                    have += len(block)
                    if have > most:  # and perhaps it never ends
                        part.unlink()
                        raise DataError(f"{url} is not the expected file: it has more than {most:,} bytes")
                    file.write(block)
                    bar.update(len(block))
                file.flush()
                os.fsync(file.fileno())
    except requests.exceptions.SSLError as error:  # to ask again changes nothing
        raise DataError(f"cannot download {url}: there is no secure connection to the server") from error
    except (requests.RequestException, HTTPError, ConnectionError, TimeoutError, ValueError) as error:
        raise _TransferError(f"the connection failed ({type(error).__name__})") from error
    if total is not None and part.stat().st_size < total:  # urllib3 1 takes the early end for the end
        raise _TransferError("the connection was dropped")


def _fault(path: Path, sha256: str | None, size: int | None) -> str | None:
    """What is wrong with a downloaded file, in words; None if it is right."""
    found_size = path.stat().st_size
    if size is not None and found_size != size:
        return f"it has {found_size:,} bytes instead of {size:,}"
    if sha256 is not None and (found := digest_of(path)) != sha256:
        return f"its sha256 is {found} instead of {sha256}"
    return None


def _member_blocks(archive: Path, member: str) -> Iterator[bytes]:
    """Read a regular file out of `archive`, after a look at the names of all its members."""
    is_zip = archive.suffix == ".zip"
    opened: Any  # ZipFile and TarFile do the same under different names
    try:
        with zipfile.ZipFile(archive) if is_zip else tarfile.open(archive) as opened:
            names = opened.namelist() if is_zip else opened.getnames()
            for name in names:
                if _leaves_folder(name):
                    raise DataError(f"{archive} is refused: its member {name!r} lies outside its own folder")
            stored = {PurePosixPath(name): name for name in names}.get(PurePosixPath(member))  # "./a/b" is "a/b"
            if stored is None:
                raise DataError(f"{archive} has no member {member}")
            stream: IO[bytes] | None = opened.open(stored) if is_zip else opened.extractfile(stored)
            if stream is None:
                raise DataError(f"{member} in {archive} is not a file")
            with stream:
                while block := stream.read(BLOCK):
                    yield block
    except _DAMAGED as error:
        raise DataError(f"cannot read {archive}: {error}") from error


def _leaves_folder(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or bool(PureWindowsPath(name).drive)
