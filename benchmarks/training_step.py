"""How long is one training step, from data to updated weights, beside its peers in the same run?

    python benchmarks/training_step.py [--backend torch tf jax] [--shape ptb ...] [--json FILE] [option ...]

For every shape and backend: milliseconds (median, min-max), tokens per second, the first step (which traces and
compiles), peak memory of a process that does nothing else, and ratios to peers that the backend's file
`peers_<backend>.py` supplies:

    naive     the same model, written the obvious way: gates apart, derivatives by the framework
    compiled  (torch) the naive model with each time step under `torch.compile`
    lstm      the framework's own LSTM, stacked, with as many parameters (tiny: as many units and layers)
    matmul    nothing but the matrix products of the step, into preallocated results where the framework can

and, with several backends, to the first of them. Each backend has a process of its own, and takes turns with the
others: samples of all are interleaved, so that a noisy moment hits all alike; a ratio is the median over the rounds.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shapes import LEARNING_RATE, MAX_GRAD_NORM, SEED, SHAPES, WEIGHT_DECAY, Data, Shape, Step

import rhn
import rhn.backend

PEERS = {
    "torch": ("naive", "compiled", "lstm", "matmul"),
    "tf": ("naive", "lstm", "matmul"),
    "jax": ("naive", "lstm", "matmul"),
}
SHORTEST_SAMPLE = 0.1  # seconds: a sample of a shorter step is the mean of several
FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Variant:
    """How the RHN is built; see `rhn.backend.Backend.build`."""

    device: str | None = None
    precision: str = "float32"
    recompute: bool = False


def rhn_step(backend: str, shape: Shape, variant: Variant) -> Step:
    """What is measured: `train_step` of the backend, with everything that training does around it."""
    parameters = rhn.initial_parameters(shape.config, SEED)
    model = rhn.load_backend(backend).build(shape.config, parameters, **vars(variant))
    data = Data(shape)
    state = model.zero_state(shape.batch_size)

    def step() -> None:
        nonlocal state
        tokens, targets = data.next_window()
        masks = data.masks(tokens)
        loss, state = model.train_step(tokens, targets, state, masks, LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM)
        model.to_numpy(loss)  # waits for the device
        model.to_numpy(model.last_grad_norm)

    return step


# ----------------------------------------------------------------------------------------------------------------------
# In a process of its own for each backend. What a process has made ready for its samples is global to it.
# ----------------------------------------------------------------------------------------------------------------------

_steps: dict[str, Step] = {}
_repeats: dict[str, int] = {}


def make_ready(backend: str, shape_name: str, variant: Variant) -> float:
    """Make the steps of a backend and its peers, and take each twice; seconds that the RHN's first step took."""
    shape = SHAPES[shape_name]
    _steps["rhn"] = rhn_step(backend, shape, variant)
    first_step = duration(_steps["rhn"])
    peers = importlib.import_module(f"peers_{backend}")
    for peer in PEERS[backend] if shape.peers is None else shape.peers:
        try:
            _steps[peer] = getattr(peers, f"{peer}_step")(shape)
        except RuntimeError as error:
            print(f"{backend}: left out: {error}")
            continue
        _steps[peer]()
    for name, step in _steps.items():
        _repeats[name] = max(1, round(SHORTEST_SAMPLE / duration(step)))
    return first_step


def sample() -> dict[str, float]:
    """Seconds per step of the RHN ("rhn") and of every peer, now."""
    return {name: statistics.fmean(duration(step) for _ in range(_repeats[name])) for name, step in _steps.items()}


def peak_memory(backend: str, shape_name: str, variant: Variant) -> int:
    """Peak resident bytes of a process that trains the RHN for three steps."""
    step = rhn_step(backend, SHAPES[shape_name], variant)
    for _ in range(3):
        step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def duration(step: Step) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def fresh_process() -> ProcessPoolExecutor:
    """A fresh process, which no earlier measurement has touched."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


# ----------------------------------------------------------------------------------------------------------------------


def measure(backends: list[str], shape_name: str, seconds: float, variant: Variant) -> dict[str, Any]:
    """The record of one shape: what is common to all, and under "backends" the measurements of each."""
    shape = SHAPES[shape_name]
    peaks = {}
    for backend in backends:
        with fresh_process() as process:
            peaks[backend] = process.submit(peak_memory, backend, shape_name, variant).result()
    with ExitStack() as stack:
        processes = {backend: stack.enter_context(fresh_process()) for backend in backends}
        first_steps = {b: p.submit(make_ready, b, shape_name, variant).result() for b, p in processes.items()}
        rounds = []  # [{backend: {"rhn" or peer: seconds}}]
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(rounds) < FEWEST_ROUNDS:
            rounds.append({backend: process.submit(sample).result() for backend, process in processes.items()})
    tokens = shape.batch_size * shape.length
    return {
        "config": shape.config.to_dict(),
        "batch_size": shape.batch_size,
        "length": shape.length,
        "lstm": {"layers": shape.lstm_layers, "units": shape.units_of_lstm()},
        "rounds": len(rounds),
        "backends": {
            backend: {
                "times": {name: _milliseconds([r[backend][name] for r in rounds]) for name in rounds[0][backend]},
                "first_step_ms": first_steps[backend] * 1e3,
                "tokens_per_second": tokens / statistics.median(r[backend]["rhn"] for r in rounds),
                "peak_bytes": peaks[backend],
                "rhn_time_over": {
                    **{
                        peer: statistics.median(r[backend]["rhn"] / r[backend][peer] for r in rounds)
                        for peer in rounds[0][backend]
                        if peer != "rhn"
                    },
                    **{
                        f"rhn_{first}": statistics.median(r[backend]["rhn"] / r[first]["rhn"] for r in rounds)
                        for first in backends[:1]
                        if first != backend
                    },
                },
            }
            for backend in backends
        },
    }


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    return {"median_ms": statistics.median(seconds) * 1e3, "min_ms": min(seconds) * 1e3, "max_ms": max(seconds) * 1e3}


def show(name: str, record: dict[str, Any]) -> None:
    """Print the record of one shape."""
    for backend, own in record["backends"].items():
        print(
            f"{name}, {backend}: {own['tokens_per_second']:,.0f} tokens/s,"
            f" peak memory {own['peak_bytes'] / 1e9:.2f} GB, first step {own['first_step_ms'] / 1e3:.1f} s"
        )
        for peer, times in own["times"].items():
            line = f"  {peer:<9}{times['median_ms']:9.1f} ms ({times['min_ms']:.1f}-{times['max_ms']:.1f})"
            if peer != "rhn":
                ratio = own["rhn_time_over"][peer]
                line += f"   rhn takes {ratio:.2f} x, is {1 / ratio:.2f} x as fast"
            print(line)
        for peer, ratio in own["rhn_time_over"].items():
            if peer.startswith("rhn_"):
                print(f"  takes {ratio:.2f} x the time of {peer}")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, system and Python, for records."""
    cpuinfo = Path("/proc/cpuinfo")
    models = (
        [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.exists()
        else [platform.processor()]
    )
    return {
        "cpu": models[0],
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }


def shapes_on_record(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The shapes of an earlier record, to be kept beside new ones, if they were measured in the same circumstances."""
    earlier = json.loads(path.read_text())
    shapes = earlier.pop("shapes")
    return shapes if earlier == {name: value for name, value in record.items() if name != "shapes"} else {}


def describe_backends(backends: list[str]) -> dict[str, dict[str, str]]:
    """Versions and device of each, found out in processes that end afterwards."""
    described = {}
    for backend in backends:
        with fresh_process() as process:
            described[backend] = process.submit(_describe, backend).result()
    return described


def _describe(backend: str) -> dict[str, str]:
    return rhn.load_backend(backend).describe()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", nargs="+", default=["torch"], choices=list(PEERS))
    parser.add_argument("--shape", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--seconds", type=float, default=45.0, help="of timing per shape (at least three rounds)")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="of the RHN; peers run where their framework prefers")
    parser.add_argument("--precision", default="float32", choices=rhn.backend.PRECISIONS, help="of the RHN's products")
    parser.add_argument("--recompute", action="store_true", help="as the training option of that name")
    parser.add_argument("--json", type=Path, help="file for the record; keeps other shapes in it, if of the same setup")
    arguments = parser.parse_args()

    variant = Variant(arguments.device, arguments.precision, arguments.recompute)
    record: dict[str, Any] = {
        "benchmark": "training_step",
        "versions": describe_backends(arguments.backend),
        "machine": describe_machine(),
        "variant": vars(variant),
        "shapes": {},
    }
    print(f"{record['versions']} on {record['machine']}")
    if arguments.json and arguments.json.exists():
        record["shapes"] |= shapes_on_record(arguments.json, record)
    for name in arguments.shape:
        record["shapes"][name] = measure(arguments.backend, name, arguments.seconds, variant)
        show(name, record["shapes"][name])
        if arguments.json:
            arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
