"""Errors that the user can fix end a command with a one-sentence message, not with a traceback."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

from rhn.preflight import PreflightError
from rhn.processes import ProcessLostError
from rhn.text import one_line
from rhn.training.terminal.console import say
from rhn_datasets import DataError

# Errors that the user can fix; their message is one sentence. They include OptionError, CheckpointError, DivergedError.
USER_ERRORS = (
    *(DataError, ImportError, ValueError, OSError, ArithmeticError),
    *(PreflightError, MemoryError, ProcessLostError),
)


class RunInterruptedError(Exception):
    """A signal ended the run, after everything was saved. The message says how to continue."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_status = 128 + signal_number


def with_user_errors(command: Callable[..., Any], *arguments: Any) -> Any:
    """Run a command. An error that the user can fix ends the process with a one-sentence message, not a traceback."""
    try:
        return command(*arguments)
    except USER_ERRORS as error:
        sys.exit(f"error: {one_line(sentence(error))}")
    except RunInterruptedError as stop:
        say(str(stop))
        sys.exit(stop.exit_status)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def sentence(error: BaseException) -> str:
    """The message of an error; errors of the operating system also name the file."""
    if isinstance(error, MemoryError):
        return "this machine has not enough memory: make hidden_size, batch_size or recurrence_depth smaller"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)
