"""Where does a training step spend the time that its bare matrix products do not take?

    python benchmarks/step_profile.py [--backend torch tf jax] [--shape small ptb] [--seconds N] [--json FILE]

The step is timed beside parts of itself, in turns, and beside the same step of a model that knows two words only:

    products    the peer "matmul" of `training_step.py`
    update      decay, norm, clipping and update of every parameter
    host        the window and its masks, which training draws while the device computes
    loss        what more words cost, beyond their share of products and update: soft-max, cross-entropy, embedding
    recurrence  the rest, with two words: all between the products of the recurrence, and what calls and copies cost

So the parts add up to the step. Each is a median over the rounds. Every backend has one core (Linux; elsewhere it is
left to the system): with several, parts of a step run at the same time, and the times of the parts do not add up.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from shapes import SHAPES, Data, Shape, Step
from training_step import FEWEST_ROUNDS, PEERS, Variant, describe_backends, describe_machine, duration, fresh_process
from training_step import rhn_step as whole_step

PARTS = ("products", "loss", "recurrence", "update", "host")

_steps: dict[str, Step] = {}


def make_ready(backend: str, shape: Shape) -> None:
    """In a process of its own for each backend: make the steps, and take each twice."""
    if hasattr(os, "sched_setaffinity"):  # before a framework counts the cores
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    peers = importlib.import_module(f"peers_{backend}")
    two_words = replace(shape, config=replace(shape.config, vocab_size=2))
    for name, of in (("", shape), (" of two words", two_words)):
        _steps[f"step{name}"] = whole_step(backend, of, Variant())
        _steps[f"products{name}"] = peers.matmul_step(of)
        _steps[f"update{name}"] = peers.update_step(of)
    _steps["host"] = _draw(Data(shape))
    for step in _steps.values():
        step()
        step()


def _draw(data: Data) -> Step:
    def step() -> None:
        tokens, _ = data.next_window()
        data.masks(tokens)

    return step


def sample() -> dict[str, float]:
    """Seconds of the step ("step") and of each part, now."""
    seconds = {name: duration(step) for name, step in _steps.items()}
    more = {name: seconds[name] - seconds[f"{name} of two words"] for name in ("step", "products", "update")}
    return {
        "step": seconds["step"],
        "products": seconds["products"],
        "loss": more["step"] - more["products"] - more["update"],
        "recurrence": seconds["step of two words"]
        - seconds["products of two words"]
        - seconds["update of two words"]
        - seconds["host"],
        "update": seconds["update"],
        "host": seconds["host"],
    }


def measure(backends: list[str], shape: Shape, seconds: float) -> dict[str, dict[str, float]]:
    """Milliseconds of the step and of each part, for each backend; the backends take turns."""
    with ExitStack() as stack:
        processes: dict[str, ProcessPoolExecutor] = {b: stack.enter_context(fresh_process()) for b in backends}
        for backend, process in processes.items():
            process.submit(make_ready, backend, shape).result()
        rounds: list[dict[str, dict[str, float]]] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(rounds) < FEWEST_ROUNDS:
            rounds.append({backend: process.submit(sample).result() for backend, process in processes.items()})
    return {b: {name: 1e3 * statistics.median(r[b][name] for r in rounds) for name in rounds[0][b]} for b in backends}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", nargs="+", default=["torch"], choices=list(PEERS))
    parser.add_argument("--shape", nargs="+", default=["small"], choices=("small", "ptb"))
    parser.add_argument("--seconds", type=float, default=60.0, help="of timing per shape (at least three rounds)")
    parser.add_argument("--json", type=Path, help="file for the record")
    arguments = parser.parse_args()

    record: dict[str, Any] = {
        "benchmark": "step_profile",
        "versions": describe_backends(arguments.backend),
        "machine": describe_machine(),
        "shapes": {},
    }
    for name in arguments.shape:
        record["shapes"][name] = measure(arguments.backend, SHAPES[name], arguments.seconds)
        for backend, times in record["shapes"][name].items():
            parts = ", ".join(f"{part} {times[part]:.1f}" for part in PARTS)
            print(f"{name}, {backend}: {times['step']:.1f} ms = {parts}")
        if arguments.json:
            arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
