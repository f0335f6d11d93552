"""What a command says: lines that cannot end a run, and progress that suits where it goes."""

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
    """Say and show nothing from here on: another process of the same run speaks for all."""
    global _is_silent
    _is_silent = True


def say(text: str, *, end: str = "\n") -> None:
    """Print `text`, whatever the terminal can show of it.

    Control characters are shown, not obeyed: names and texts come from files. What the encoding of stdout lacks is
    replaced. If stdout takes nothing any more, because nobody reads it or its disk is full, nothing is said from here
    on.
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


_keepers: list[Callable[[str], None]] = []  # what is called with each warning, besides


def warn(text: str) -> None:
    """As `say`, to stderr, and to whoever keeps warnings."""
    if _is_silent:
        return
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    print(f"warning: {printable(text)}".encode(encoding, errors="replace").decode(encoding), file=sys.stderr)
    for keep in _keepers:
        keep(text)


@contextmanager
def warnings_kept(keep: Callable[[str], None]) -> Iterator[None]:
    """Within it, `keep` is called with each warning: of `warn`, and of Python's own, which become one line each."""

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
    """How far a long piece of work is: a bar on a terminal, elsewhere a line a minute.

    Args:
        what: is done.
        total: tokens in all.
        done: tokens done already.
        show: False says nothing at all.
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
        """So many more tokens are done."""
        self._done += tokens
        self._bar.update(tokens)
        if self._says_lines and time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            note = f", {self._note}" if self._note else ""
            say(f"{self._what}: {self._done / max(self._total, 1):.0%} of {self._total:,} tokens{note}")

    def note(self, text: str) -> None:
        """What the bar shows at its end."""
        self._note = text
        self._bar.set_postfix_str(text)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


@contextmanager
def shown_progress(what: str, total: int, done: int = 0, *, show: bool) -> Iterator[Any]:
    """A `Progress` that is taken away at the end."""
    shown = Progress(what, total, done, show=show)
    try:
        yield shown
    finally:
        shown.close()
