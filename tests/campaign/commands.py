"""The command line, in this process and in one of its own, and what may come out of it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rhn.training.command_line import run

TEXT = "pack my box with five dozen liquor jugs.\n" * 20
SMALL = (
    *("dataset=text", "data_path=text.txt", "hidden_size=4", "recurrence_depth=1", "batch_size=2", "bptt_length=5"),
    *("epochs=1", "max_steps=1", "preflight=False", "progress=False"),
)
# Saves after every step, so that a kill falls into the writing, too.
EAGER = "import rhn.training.loop as loop; loop.SECONDS_BETWEEN_READINGS = 0.0; "
# In which a command of a tiny model has to end; a hundred times what it takes, for other programs may want the machine.
SECONDS = 600


class TooLongError(BaseException):
    """A command does not come to an end."""


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise TooLongError if the block takes longer."""

    def stop(number: int, frame: Any) -> None:
        raise TooLongError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def call(backend: str, words: list[str], folder: Path) -> tuple[str, str]:
    """Run a command in this process, in `folder`.

    Returns:
        How it ended ("done", "refused", or what it must not be) and the sentence of the refusal.
    """
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), within(SECONDS):
            run(backend, words)
        return verdict(0, "", err.getvalue())
    except SystemExit as stop:
        return verdict(stop.code, str(stop.code), err.getvalue())
    except TooLongError:
        return f"not ended after {SECONDS} s", ""
    except BaseException as error:  # the campaign goes on whatever it was
        return f"{type(error).__name__} instead of a sentence: {error}", ""
    finally:
        os.chdir(before)


def start(backend: str, words: list[str], folder: Path, eager: bool = False, **more: Any) -> subprocess.Popen[str]:
    """Run a command in a process of its own, in `folder`."""
    program = f"{EAGER if eager else ''}from rhn.training.command_line import run; run({backend!r})"
    return subprocess.Popen(
        [*more.pop("before", []), sys.executable, "-c", program, *words],
        cwd=folder,
        stdout=more.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        **more,
    )


def end_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for a process that was started; what `call` returns."""
    try:
        _, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"not ended after {SECONDS} s", ""
    return verdict(process.returncode, err.removesuffix("\n"), err)


def verdict(status: Any, sentence: str, stderr: str) -> tuple[str, str]:
    """How a command ended, by its exit status, what it left with, and stderr."""
    if "Traceback" in stderr or "Exception ignored" in stderr:
        return f"a traceback: {stderr[-300:]}", ""
    if status in (0, None):
        return "done", ""
    if not sentence.startswith("error: "):
        return f"no sentence, but status {status} and {sentence!r}", ""
    if "\n" in sentence:
        return f"several lines: {sentence!r}", ""
    return "refused", sentence
