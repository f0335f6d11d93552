"""Writes a file or a folder whole or not at all; removes temporary files of killed writes."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, payload: bytes) -> None:
    """Replace the file at `path` by `payload`: written beside it, flushed to disk, renamed.

    Raises:
        OSError: the file cannot be written; an earlier one at `path` is untouched.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp makes it private; a checkpoint is an ordinary file
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Yield an empty folder, which is renamed to `folder` at the end of the block, or removed if the block fails.

    Raises:
        OSError: `folder` exists and is not empty, or cannot be made.
    """
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())  # mkdtemp makes a private folder
        if folder.exists():
            folder.rmdir()  # an OSError if there is something in it
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _flush_folder(folder.parent)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files and folders that killed writes have left in `folder`.

    Args:
        folder: a folder that no other process writes into.
        name: name of the file or folder that was to be written; None: any name.
    """
    for left in folder.glob(".*.tmp" if name is None else f".{glob.escape(name)}.*.tmp"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Make sure that a rename in `folder` survives a power cut."""
    if hasattr(os, "O_DIRECTORY"):  # not on Windows, where a folder cannot be opened
        descriptor = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
