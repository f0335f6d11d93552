"""Output of the commands: lines that cannot make a run fail, warnings, and progress for terminals and log files."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

from rhn.text import printable

_SECONDS_BETWEEN_LINES = 60.0
_is_silent = False


def be_silent() -> None:
    """Print and show nothing from here on: another process of the same run prints for all."""
    global _is_silent
    _is_silent = True


def say(text: str, *, end: str = "\n") -> None:
    """Print `text` on any terminal.

    Names and texts come from files, so control characters are shown, not obeyed. Characters that the encoding of stdout
    lacks are replaced. If stdout can no longer be written, because nobody reads it or its disk is full, nothing is
    printed from here on.
    """
    if _is_silent:
        return
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    harmless = printable(text).encode(encoding, errors="replace").decode(encoding)
    try:
        with tqdm.external_write_mode(file=sys.stdout):
            sys.stdout.write(harmless + end)
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  for as long as the process lives


_keepers: list[Callable[[str], None]] = []  # functions that are also called with each warning


def warn(text: str) -> None:
    """Like `say`, but to stderr and to the functions that keep warnings."""
    if _is_silent:
        return
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    print(f"warning: {printable(text)}".encode(encoding, errors="replace").decode(encoding), file=sys.stderr)
    for keep in _keepers:
        keep(text)


@contextmanager
def warnings_kept(keep: Callable[[str], None]) -> Iterator[None]:
    """Within this context, `keep` is called with each warning of `warn`, and with each of Python's own, as one line."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        warn(f"{category.__name__}: {' '.join(str(message).split())}")

    before, warnings.showwarning = warnings.showwarning, show
    _keepers.append(keep)
    try:
        yield
    finally:
        _keepers.remove(keep)
        warnings.showwarning = before


class Progress:
    """Shows the progress of a long task: as a bar on a terminal, otherwise as one line a minute.

    Args:
        what: name of the task.
        total: number of tokens in total.
        done: number of tokens already done.
        show: False shows nothing.
    """

    def __init__(self, what: str, total: int, done: int = 0, *, show: bool) -> None:
        self._what, self._total, self._done, self._note = what, total, done, ""
        show = show and not _is_silent
        self._is_terminal = sys.stderr.isatty()
        self._says_lines = show and not self._is_terminal
        self._last_line = time.monotonic()
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=printable(what),
            unit=" tokens",
            unit_scale=True,
            leave=False,
            disable=not (show and self._is_terminal),
        )

    def update(self, tokens: int) -> None:
        """Report that `tokens` more tokens are done."""
        self._done += tokens
        self._bar.update(tokens)
        if self._says_lines and time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            note = f", {self._note}" if self._note else ""
            say(f"{self._what}: {self._done / max(self._total, 1):.0%} of {self._total:,} tokens{note}")

    def note(self, text: str) -> None:
        """Show `text` at the end of the bar."""
        self._note = text
        self._bar.set_postfix_str(text)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()


@contextmanager
def shown_progress(what: str, total: int, done: int = 0, *, show: bool) -> Iterator[Any]:
    """A `Progress` that is closed at the end."""
    shown = Progress(what, total, done, show=show)
    try:
        yield shown
    finally:
        shown.close()
