"""Runs that are killed again and again, at any moment, in real processes: they end as if nobody had touched them."""

from __future__ import annotations

import importlib.util
import json
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from commands import TEXT, end_of, start
from tally import Limit, Tally

import rhn

PACKAGES = {"reference": "numpy", "torch": "torch", "tf": "tensorflow", "jax": "jax"}
OPTIONS = (
    *("dataset=text", "data_path=text.txt", "hidden_size=5", "recurrence_depth=2", "batch_size=2", "bptt_length=10"),
    *("epochs=2", "optimizer=adam", "learning_rate=0.01", "drop_state=0.5", "average_after=1"),
    *("preflight=False", "progress=False", "checkpoint_minutes=1e-9"),
)
DTYPES = ("float32", "float64")
OF_THE_MACHINE = ("seconds", "waiting_seconds", "tokens_per_second")


def try_kills(seed: int, kills: int, backend: str, folder: Path, limit: Limit) -> list[Tally]:
    """Kill trainings of `backend` at least `kills` times in all, and samplings a quarter as often."""
    training, sampling = Tally(f"kills of training, {backend}"), Tally(f"kills of evaluate_mc, {backend}")
    if importlib.util.find_spec(PACKAGES[backend]) is None:
        training.skipped = sampling.skipped = f"{PACKAGES[backend]} is not installed"
        return [training, sampling]
    draw = random.Random(f"{seed} {backend}")
    (folder / "text.txt").write_text(TEXT * 4)
    seconds, expected = 0.0, {}
    for dtype in DTYPES:
        seconds = _run(backend, ["with", *OPTIONS, f"dtype={dtype}", f"run={dtype}"], folder)
        expected[dtype] = _end(folder / "runs" / dtype)
    try_sampling = _samplings(draw, backend, sampling, folder)
    chain = 0
    while training.tried < kills and not limit.is_over():
        chain += 1
        dtype = DTYPES[chain % 2]
        name = f"{dtype}-{chain}"
        run = folder / "runs" / name

        def words(dtype: str = dtype, name: str = name, run: Path = run) -> list[str]:
            if (run / "options.json").exists():
                return ["with", f"resume=runs/{name}"]
            return ["with", *OPTIONS, f"dtype={dtype}", f"run={name}"]

        moments, fault = _kill(draw, backend, words, seconds, folder, lambda run=run: _moment(run))
        leftovers = list(run.glob(".*.tmp"))
        fault = fault or _difference(_end(run), expected[dtype]) or (f"left behind: {leftovers}" if leftovers else "")
        _count(training, moments, fault, name)
        if sampling.tried < training.tried / 4:
            try_sampling(f"mc{chain}")
    return [training, sampling]


def _samplings(draw: random.Random, backend: str, tally: Tally, folder: Path) -> Callable[[str], None]:
    """What kills a sampling, whose file has the given name, again and again."""

    def words(name: str) -> list[str]:
        more = ["mc_samples=8", "mc_rows=1", "progress=False", f"mc_file={name}.safetensors"]
        return ["evaluate_mc", "with", "checkpoint=runs/float64/best.safetensors", *more]

    seconds = _run(backend, words("untouched"), folder)
    expected = (folder / "untouched.json").read_bytes()

    def attempt(name: str) -> None:
        moments, fault = _kill(draw, backend, lambda: words(name), seconds, folder, lambda: "evaluate_mc")
        leftovers = list(folder.glob(f".{name}.*.tmp"))
        if not fault and (leftovers or (folder / f"{name}.json").read_bytes() != expected):
            fault = f"other samples, or left behind: {leftovers}"
        _count(tally, moments, fault, name)

    return attempt


def _kill(
    draw: random.Random,
    backend: str,
    words: Callable[[], list[str]],
    seconds: float,
    folder: Path,
    moment: Callable[[], str],
) -> tuple[list[str], str]:
    """Start, kill, start again, kill ...; in the end let it be.

    Returns:
        When each kill fell, and what went wrong then.
    """
    moments = []
    for _ in range(draw.randrange(2, 10)):
        process = start(backend, words(), folder, eager=True, stdout=subprocess.DEVNULL)
        try:
            # What a run has done it does not do again, so a late kill is followed by kills of the epilogue only.
            process.wait(timeout=draw.uniform(0.02, 1.05 if draw.random() < 0.15 else 0.6) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            moments.append(moment())
        _, err = process.communicate()
        if process.returncode == 0:
            break
        if process.returncode != -signal.SIGKILL:
            return moments, err[-300:]
    end, sentence = end_of(start(backend, words(), folder, eager=True, stdout=subprocess.DEVNULL))
    return moments, "" if end == "done" else f"{end} {sentence}"


def _run(backend: str, words: list[str], folder: Path) -> float:
    """Let a command come to its end; how long it took."""
    begun = time.monotonic()
    end, sentence = end_of(start(backend, words, folder, eager=True, stdout=subprocess.DEVNULL))
    assert end == "done", f"{words}: {end} {sentence}"
    return time.monotonic() - begun


def _moment(run: Path) -> str:
    if not (run / "options.json").exists():
        return "in the imports"
    if not (run / "last.safetensors").exists():
        return "before the first checkpoint"
    finished = (run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_text().splitlines()) == 2
    return "in the epilogue" if finished else "in training or saving"


def _count(tally: Tally, moments: list[str], fault: str, name: str) -> None:
    """Each kill of a chain has survived, if the chain has ended well."""
    for moment in moments or ["never"] * bool(fault):
        tally.failed(f"{name}, killed {moments}: {fault}") if fault else tally.survived(moment)


def _end(run: Path) -> dict[str, Any]:
    """All that a finished run leaves, without what the clock says."""
    end: dict[str, Any] = {
        "sample.txt": (run / "sample.txt").read_bytes(),
        "summary": (run / "summary.json").read_bytes(),
    }
    for file in ("last.safetensors", "best.safetensors"):
        arrays, metadata = rhn.load_checkpoint(run / file)
        progress = {**metadata["progress"], "seconds": 0, "waiting_seconds": 0}
        rows = [{k: v for k, v in row.items() if k not in OF_THE_MACHINE} for row in progress.pop("history")]
        end[f"{file}, progress"] = json.dumps([progress, rows])
        end |= {f"{file}, {name}": (value.dtype.str, value.tobytes()) for name, value in arrays.items()}
    return end


def _difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    different = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    return f"not bit for bit: {different}" if different else ""
