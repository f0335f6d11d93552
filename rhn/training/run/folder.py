"""The folder of a run: its files, each written whole or not at all, and how it is made, locked and resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rhn.backend import Backend
from rhn.checkpoint import package_version
from rhn.files import remove_leftovers, write_atomically
from rhn.machine import describe_machine
from rhn.processes import ALONE, Processes
from rhn.training.options import OPTIONS, OptionError, Options, options_from
from rhn.training.terminal.console import warnings_kept

_LOCK = ".lock"
# A folder with nothing else in it has seen no training step, and can be used again.
_BEFORE_TRAINING = {_LOCK, "options.json", "environment.json", "warnings.json", "report.html"}


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    It holds `options.json`, the options; `changes.json`, the options that were changed when the run was resumed, with
    the step; `environment.json`, versions and machine; `metrics.jsonl`, one row per epoch; `best.safetensors`, the
    checkpoint with the best validation score; `last.safetensors`, the newest checkpoint; `warnings.json`, all warnings;
    and `report.html`. At the end there are also `summary.json`, the final scores, and `sample.txt`.
    """

    path: Path

    @property
    def options(self) -> Path:
        return self.path / "options.json"

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.path / "last.safetensors"

    def read_options(self) -> dict[str, Any]:
        """The options in `options.json`, by name.

        Raises:
            OptionError: the file is damaged, or an option in it has a value that is not accepted.
        """
        try:
            values = json.loads(self.options.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError("expected names and values of options")
            return vars(options_from(values))
        except (ValueError, RecursionError) as error:
            raise OptionError(f"{self.options} is damaged ({error})") from error

    def read_list(self, name: str) -> list[Any]:
        """The list in the file `name`, which is `changes.json` or `warnings.json`; empty if there is no file."""
        file = self.path / name
        try:
            entries = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
        except (ValueError, RecursionError) as error:
            raise OptionError(f"{file} is damaged ({error})") from error
        return entries if isinstance(entries, list) else []

    def write_json(self, name: str, value: Any) -> None:
        write_atomically(self.path / name, (json.dumps(value, indent=2) + "\n").encode())

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(row) + "\n" for row in history)
        write_atomically(self.path / "metrics.jsonl", lines.encode())

    def write_text(self, name: str, text: str) -> None:
        write_atomically(self.path / name, text.encode())

    @contextmanager
    def warnings_kept(self, earlier: list[str]) -> Iterator[None]:
        """Within this context, `warnings.json` lists the `earlier` warnings and each new warning once."""
        kept = list(earlier)

        def keep(text: str) -> None:
            if text not in kept:
                kept.append(text)
                with suppress(OSError):  # a warning that cannot be kept ends no training
                    self.write_json("warnings.json", kept)

        self.write_json("warnings.json", kept)
        with warnings_kept(keep):
            yield

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within this context, no other process may write into the folder. Remains of killed writes are removed.

        Raises:
            OptionError: another process is writing into it.
        """
        with one_writer(self.path / _LOCK, f"{self.path} is in use: another process trains there"):
            remove_leftovers(self.path)
            yield


@contextmanager
def one_writer(lock: Path, refusal: str) -> Iterator[None]:
    """Hold the file `lock` within this context; OptionError with the text `refusal` if another process holds it."""
    try:
        held = FileLock(lock).acquire(timeout=0)
    except Timeout:
        raise OptionError(refusal) from None
    with held:
        yield


def open_run_folder(path: str) -> RunFolder:
    """The folder of an earlier run; OptionError if `path` is not such a folder."""
    folder = RunFolder(Path(path))
    if not folder.options.is_file():
        raise OptionError(f"resume={path!r} is not accepted: expected the folder of a run, with its options.json")
    return folder


def new_run_folder(options: Options, label: str) -> RunFolder:
    """Choose the folder of a new run: `runs_path/run`, or one named by `label` and the time. It is not made yet.

    Raises:
        OptionError: the folder is not empty.
    """
    path = Path(options.runs_path) / (options.run or f"{label}-{datetime.now():%Y%m%d-%H%M%S}")
    try:
        for number in range(2, 1000):
            if options.run is not None or not path.exists():
                break
            path = path.with_name(f"{path.name.split('.')[0]}.{number}")  # two runs within a second
        folder = RunFolder(path)
        check_unused(folder, options)
    except OSError as error:
        raise _cannot_be_made(options, path, error) from error
    return folder


def check_unused(folder: RunFolder, options: Options) -> None:
    """Raise OptionError if something was trained in `folder` already, or if it holds other files."""
    inside = {file.name for file in folder.path.iterdir()} if folder.path.exists() else set()
    if not all(name in _BEFORE_TRAINING or _is_leftover(name) for name in inside):
        raise OptionError(f"run={options.run!r} is not accepted: {folder.path} is not empty; choose another name")


def make_folder(folder: RunFolder, options: Options) -> None:
    """Make the folder of a new run; OptionError if it cannot be made."""
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_made(options, folder.path, error) from error


def describe_environment(backend: Backend, processes: Processes = ALONE) -> dict[str, str]:
    """Versions and machine of a run: names and values for its record, in the order in which they are shown."""
    return {
        "backend": backend.name,
        **backend.describe(),
        "recurrent-highway-networks": package_version(),
        **describe_machine(),
        **({} if processes.shares == 1 else {"batch shared by": processes.shared_by}),
    }


def _is_leftover(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def _cannot_be_made(options: Options, path: Path, error: OSError) -> OptionError:
    return OptionError(f"runs_path={options.runs_path!r} is not accepted: {path} cannot be made ({error.strerror})")


def resumed_options(folder: RunFolder, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
    """The options with which a run is continued: its earlier options, replaced by those `given` now.

    Args:
        folder: the folder of the run.
        given: the options that the user gave now, by name.

    Returns:
        All options by name; and the changed options by name, with their values before and after.

    Raises:
        OptionError: one of the given options cannot be changed.
    """

    before = folder.read_options()
    changed = {
        name: (before[name], value)
        for name, value in given.items()
        if name not in ("resume", "run", "runs_path") and value != before[name]
    }
    for name in ("run", "runs_path"):
        if name in given and given[name] != before[name]:
            raise OptionError(f"{name}={given[name]!r} is not accepted with resume: the run already has a folder")
    fixed = [
        f"{name}={after!r} (it was {was!r})" for name, (was, after) in changed.items() if not OPTIONS[name].may_change
    ]
    if fixed:
        raise OptionError(f"{', '.join(fixed)} is not accepted with resume: this option must stay as it was")
    return {**before, **given}, changed
