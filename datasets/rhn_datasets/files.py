"""Shared by the other modules: the error that users see, paths, digests and atomic writes."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


class DataError(Exception):
    """A corpus cannot be loaded, or not with these arguments; the message is one sentence for the user."""


def expanded(name: str, path: str | os.PathLike[str]) -> Path:
    """The path in the argument `name`, with ~ expanded to a home folder.

    Raises:
        DataError: it is not a path, or there is no such home folder.
    """
    if not isinstance(path, (str, os.PathLike)) or "\0" in os.fspath(path):
        raise DataError(f"{name}={path!r} is not accepted: expected a path")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{name}={path!r} is not accepted: there is no such home folder") from error


def default_cache() -> Path:
    """The folder for downloads and tokens.

    Raises:
        DataError: there is no home folder.
    """
    return expanded("cache_path", os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "rhn_datasets"


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file, read in small pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; it is renamed to `path` when it is complete.

    Nobody ever sees half a file, and two processes that write the same file at once do not mix. Any exception inside
    the block leaves `path` as it was.

    Raises:
        DataError: the file cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # it has its name already, or could not even be made
            temporary.unlink()
