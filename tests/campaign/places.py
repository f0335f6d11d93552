"""Places where a program has a hard time: full disks, closed terminals, no home, nothing to write to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from commands import SMALL, TEXT, call, end_of, start
from tally import Tally

import rhn

Try = Callable[[str, list[str], bool], None]


def try_places(every: int, folder: Path) -> list[Tally]:
    """Train and evaluate the reference in every hard place; of terminals and names only in one of `every`."""
    terminals, homes, disks = Tally("terminals"), Tally("homes and permissions"), Tally("full disks")
    folder.chmod(0o755)
    (folder / "text.txt").write_text(TEXT + "± é ☃\n" * 9)
    _try_terminals(every, folder, terminals)
    _try_homes(folder, homes)
    with _small_disk(folder / "disk") as fault:
        if fault:
            disks.skipped = f"no small disk can be mounted here ({fault})"
        else:
            _try_full_disk(folder / "disk", disks)
    return [terminals, homes, disks]


def _train(
    name: str,
    folder: Path,
    tally: Tally,
    expected: str,
    *words: str,
    after: str = "",
    may_fit: bool = False,
    **more: object,
) -> None:
    """Train; afterwards the run is finished if that is expected, or one sentence holds the word `expected`.

    With `may_fit`, it may have been finished as well: what is written anew replaces what was there. In a process of its
    own if `more` says what that process is like.
    """
    training = ["with", *SMALL, "max_steps=None", *words]
    end, sentence = _run_alone(training, folder, **more) if more else call("reference", training, folder)
    if expected == "done" or (may_fit and end == "done"):
        is_right = end == "done" and bool(list(folder.glob(f"**/{after}/summary.json")))
    else:
        is_right = end == "refused" and expected in sentence
    tally.survived(end) if is_right else tally.failed(f"{name}: {end} {sentence} (expected {expected})")


def _run_alone(words: list[str], folder: Path, **more: object) -> tuple[str, str]:
    return end_of(start("reference", words, folder, **more))


def _try_terminals(every: int, folder: Path, tally: Tally) -> None:
    said = ("PYTHONIOENCODING", "PYTHONUTF8", "LC_ALL")
    plain = {name: value for name, value in os.environ.items() if name not in said}
    environments = (
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "tr_TR.UTF-8"},
    )
    for number, more in enumerate(environments[::every]):
        name = f"t{number}"
        _train(str(more), folder, tally, "done", f"run={name}", after=name, env=plain | more)
    with Path("/dev/full").open("w") as full:
        _train("stdout on a full disk", folder, tally, "done", "run=full", after="full", stdout=full)
    reading, writing = os.pipe()
    os.close(reading)  # as `| head` leaves it
    _train("nobody reads", folder, tally, "done", "run=head", after="head", stdout=writing)
    os.close(writing)
    for name in ("a$x_{$", "a|b", "<script>", "ü\u202e☃", "x" * 250, 'it\'s "quoted"', "-dash")[::every]:
        _train(f"run={name}", folder, tally, "done", f"run={name!r}", after=name.replace("[", "[[]"))


def _try_homes(folder: Path, tally: Tally) -> None:
    homeless = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME", "USER")}
    _train("no HOME", folder, tally, "done", "run=nohome", after="nohome", env=homeless)
    _train(
        "HOME that is not there", folder, tally, "done", "run=gone", after="gone", env=homeless | {"HOME": "/nowhere"}
    )
    _train("runs_path is a file", folder, tally, "runs_path", "runs_path=text.txt", "run=a")
    _train("data_path is a folder", folder, tally, "data_path", "data_path=runs")
    os.mkfifo(folder / "pipe")
    _train("data_path is a pipe", folder, tally, "data_path", "data_path=pipe")
    secret, closed = folder / "secret.txt", folder / "closed"
    secret.write_text(TEXT)
    secret.chmod(0)
    closed.mkdir()
    closed.chmod(0o555)
    # Root may do everything, unless that is taken away.
    humble = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    _train("a folder that is read-only", folder, tally, "runs_path", "runs_path=closed/runs", "run=b", before=humble)
    _train("unreadable data", folder, tally, "secret.txt", "data_path=secret.txt", "run=c", before=humble)
    try:
        subprocess.run([sys.executable, "-c", ""], user=54321, check=True)
    except (OSError, subprocess.CalledProcessError):  # this Python is not for everybody, or we are not root
        return
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    shutil.copy(folder / "text.txt", folder / "open")
    _train("a user without name", folder / "open", tally, "done", "run=who", after="who", env=homeless, user=54321)


def _try_full_disk(disk: Path, tally: Tally) -> None:
    """Training on a disk with hardly any room says so, keeps what it has, and goes on when there is room."""
    (disk / "text.txt").write_text(TEXT)
    _train("room enough", disk, tally, "done", "run=a", "epochs=2", after="a")
    for number, room in enumerate((0, 4096, 8192)):
        filler, name = disk / "filler", f"b{number}"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        os.truncate(filler, max(filler.stat().st_size - room, 0))
        _train(
            f"{room} bytes of room, resumed", disk, tally, "No space left", "resume=runs/a", "epochs=4", may_fit=True
        )
        try:
            rhn.load_checkpoint(disk / "runs/a/last.safetensors")
        except rhn.CheckpointError as error:
            tally.failed(f"the checkpoint of before is lost: {error}")
        _train(f"{room} bytes of room", disk, tally, "No space left", f"run={name}", "hidden_size=40")
        filler.unlink()
        shutil.rmtree(disk / "runs" / name, ignore_errors=True)
    end, _ = call("reference", ["with", "resume=runs/a", "epochs=3"], disk)
    tally.survived("resumed with room again") if end == "done" else tally.failed(f"resumed with room again: {end}")


@contextmanager
def _small_disk(place: Path) -> Iterator[str]:
    """Mount a disk of 600 kB, in memory, at `place`; gives why that is not possible, or ""."""
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(place)]
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    yield "" if mounted.returncode == 0 else mounted.stderr.strip()
    if mounted.returncode == 0:
        subprocess.run(["umount", "-l", str(place)], check=False)
