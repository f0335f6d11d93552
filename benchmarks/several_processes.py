"""How much faster are N processes with one core each than one process with N cores?

    python benchmarks/several_processes.py [--backend torch jax tf] [--shape enwik8] [--hidden-size 500] [--json FILE]

Both take training steps of the same model on the same batches, in turns, so that a noisy moment hits both alike; the
ratio is the median over the rounds. The cores of a process are its affinity (Linux only), and a framework starts a
thread for each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from shapes import LEARNING_RATE, MAX_GRAD_NORM, SEED, SHAPES, WEIGHT_DECAY, DrawnData, Shape, Step
from training_step import describe_backends, describe_machine

import rhn
from rhn.processes import ALONE, join_processes
from rhn_conformance.cases.processes import environments

FEWEST_ROUNDS = 3

# ----------------------------------------------------------------------------------------------------------------------
# In each of the processes
# ----------------------------------------------------------------------------------------------------------------------

_steps: list[Step] = []


def settle(cores: set[int], environment: Mapping[str, str]) -> None:
    """Before a framework is imported."""
    os.sched_setaffinity(0, cores)
    os.environ |= {"OMP_NUM_THREADS": str(len(cores)), **environment}


def make_ready(backend_name: str, shape: Shape) -> None:
    """Make the step, and take it once."""
    backend = rhn.load_backend(backend_name)
    processes = join_processes(backend, "cpu")
    together = {} if processes == ALONE else {"processes": processes}
    model = backend.build(shape.config, rhn.initial_parameters(shape.config, SEED), device="cpu", **together)
    rows = processes.rows(shape.batch_size)
    data = DrawnData(shape)
    state = model.zero_state(rows.stop - rows.start)

    def step() -> None:
        nonlocal state
        tokens, targets = data.next_window()
        masks = data.masks(tokens).rows(rows)
        window = tokens[rows], targets[rows], state, masks
        loss, state = model.train_step(*window, LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM)
        model.to_numpy(loss)

    step()
    _steps.append(step)


def take(steps: int) -> float:
    """Seconds per step."""
    start = time.perf_counter()
    for _ in range(steps):
        _steps[0]()
    return (time.perf_counter() - start) / steps


# ----------------------------------------------------------------------------------------------------------------------


def measure(backend: str, shape: Shape, count: int, steps: int, seconds: float) -> dict[str, Any]:
    """The record of one backend."""
    cores = sorted(os.sched_getaffinity(0))[:count]
    with ExitStack() as stack:

        def start(cores: set[int], environment: Mapping[str, str]) -> ProcessPoolExecutor:
            pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=settle, initargs=(cores, environment))
            stack.enter_context(pool)
            return pool

        several = [start({core}, environment) for core, environment in zip(cores, environments(count), strict=True)]
        ways = {"one": [start(set(cores), {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"})], "several": several}
        for processes in ways.values():
            together(processes, make_ready, backend, shape)
        rounds: list[dict[str, float]] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(rounds) < FEWEST_ROUNDS:
            rounds.append({way: max(together(processes, take, steps)) for way, processes in ways.items()})
        for process in several:
            process.shutdown(wait=False)  # all at once: they wait for each other
    return {
        **{f"{way}_ms": statistics.median(r[way] for r in rounds) * 1e3 for way in ways},
        "one_over_several": statistics.median(r["one"] / r["several"] for r in rounds),
        "rounds": len(rounds),
    }


def together(processes: list[ProcessPoolExecutor], function: Any, *arguments: Any) -> list[Any]:
    """What the function returns in each process; they call it at the same time."""
    calls = [process.submit(function, *arguments) for process in processes]
    wait(calls)
    return [call.result() for call in calls]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", nargs="+", default=["torch", "jax", "tf"], choices=("torch", "jax", "tf"))
    parser.add_argument("--shape", default="enwik8", choices=list(SHAPES))
    parser.add_argument("--hidden-size", type=int, help="instead of that of the shape")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1, help="of each way in a round")
    parser.add_argument("--seconds", type=float, default=120.0, help="of timing per backend (at least three rounds)")
    parser.add_argument("--json", type=Path, help="file for the record")
    arguments = parser.parse_args()
    if arguments.processes > len(os.sched_getaffinity(0)):
        parser.error(f"argument --processes: there are {len(os.sched_getaffinity(0))} cores, and each needs one")

    shape = SHAPES[arguments.shape]
    if arguments.hidden_size is not None:
        shape = replace(shape, config=replace(shape.config, hidden_size=arguments.hidden_size))
    record: dict[str, Any] = {
        "benchmark": "several_processes",
        "versions": describe_backends(arguments.backend),
        "machine": describe_machine(),
        "processes": arguments.processes,
        "config": shape.config.to_dict(),
        "batch_size": shape.batch_size,
        "length": shape.length,
        "backends": {},
    }
    for backend in arguments.backend:
        own = measure(backend, shape, arguments.processes, arguments.steps, arguments.seconds)
        record["backends"][backend] = own
        print(
            f"{backend}: one process {own['one_ms']:,.1f} ms, {arguments.processes} processes"
            f" {own['several_ms']:,.1f} ms: {own['one_over_several']:.2f} x as fast"
        )
        if arguments.json:
            arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
