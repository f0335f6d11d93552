"""How fast is a model that only reads: one stream at batch 1, one token at a time, many Monte Carlo samples at once?

    python benchmarks/inference.py [--backend torch tf jax] [--json FILE] [option ...]

For the paper's PTB model (H 830, depth 10) in each backend, medians over interleaved rounds:

    stream    milliseconds per token of one stream in windows, as the command `evaluate` reads it
    generate  milliseconds per token when each is a window of its own, as the command `generate` draws them
    memory    milliseconds in which NumPy's BLAS reads as many numbers from memory as there are weights for a token:
              no stream can be faster, since at batch 1 every weight is read to be used once
    samples   milliseconds per token of 200 samples of MC dropout as rows of one batch, and of one sample
"""

from __future__ import annotations

import argparse
import json
import statistics
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from shapes import SEED, SHAPES, Step
from training_step import PEERS, describe_backends, describe_machine, duration

import rhn

CONFIG = SHAPES["ptb"].config
RATES = SHAPES["ptb"].rates
STREAM_LENGTH = 100  # tokens of a window at batch 1
SAMPLES = 200
SAMPLES_LENGTH = 10  # tokens of a window of many samples
ROUNDS = 7

# At batch 1 every recurrent weight is read once per token; a window shares one reading of the others.
RECURRENT_WEIGHTS = CONFIG.recurrence_depth * CONFIG.num_gates * CONFIG.hidden_size**2
ALL_WEIGHTS = rhn.parameter_count(CONFIG)

_steps: dict[str, tuple[Step, int]] = {}  # per measurement: what is timed, and how many tokens it reads


def make_ready(backend: str, device: str | None) -> None:
    """Build the model and run every measurement once. In a process of its own, where `_steps` is global."""
    model = rhn.load_backend(backend).build(CONFIG, rhn.initial_parameters(CONFIG, SEED), device=device)
    stream = np.random.default_rng(SEED).integers(0, CONFIG.vocab_size, STREAM_LENGTH + 1)

    generating_state = model.zero_state(1)

    def reading(rows: int, length: int, masked: bool) -> Step:
        tokens = np.tile(stream[:length], (rows, 1))  # (rows, length)
        targets = np.tile(stream[1 : length + 1], (rows, 1))
        masks = rhn.sample_masks(CONFIG, tokens, RATES, SEED, 0) if masked else None
        state = model.zero_state(rows)

        def read() -> None:
            nll, _ = model.evaluate_step(tokens, targets, state, masks)
            model.to_numpy(nll)  # waits for the device

        return read

    _steps["stream"] = reading(1, STREAM_LENGTH, masked=False), STREAM_LENGTH
    _steps["generate"] = (lambda: model.forward(stream[:1, np.newaxis], generating_state)), 1
    _steps["one_sample"] = reading(1, SAMPLES_LENGTH, masked=True), SAMPLES_LENGTH
    _steps["samples"] = reading(SAMPLES, SAMPLES_LENGTH, masked=True), SAMPLES_LENGTH
    for step, _ in _steps.values():
        step()


def sample() -> dict[str, float]:
    """Milliseconds per token of every measurement, now."""
    return {name: duration(step) / tokens * 1e3 for name, (step, tokens) in _steps.items()}


def read_from_memory(numbers: int) -> float:
    """Milliseconds to read so many float32 from memory once."""
    # More than any cache holds, so that none is left there from the time before.
    vectors = np.ones((max(2, 100_000_000 // numbers), numbers), np.float32)
    np.dot(vectors[0], vectors[0])
    return statistics.median(duration(lambda v=v: np.dot(v, v)) for v in vectors) * 1e3


def measure(backends: list[str], device: str | None) -> dict[str, Any]:
    """The record of all backends."""
    with ExitStack() as stack:
        processes = {b: stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn"))) for b in backends}
        for backend, process in processes.items():
            process.submit(make_ready, backend, device).result()
        rounds, memory = [], []
        for _ in range(ROUNDS):
            memory.append({"stream": read_from_memory(RECURRENT_WEIGHTS), "generate": read_from_memory(ALL_WEIGHTS)})
            rounds.append({backend: process.submit(sample).result() for backend, process in processes.items()})
    return {
        "memory_ms": {name: statistics.median(m[name] for m in memory) for name in memory[0]},
        "backends": {backend: _summary([r[backend] for r in rounds], memory) for backend in backends},
    }


def _summary(rounds: list[dict[str, float]], memory: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "ms_per_token": {name: statistics.median(r[name] for r in rounds) for name in rounds[0]},
        "over_memory": {
            name: statistics.median(r[name] / m[name] for r, m in zip(rounds, memory, strict=True))
            for name in memory[0]
        },
        "samples_over_one_sample": statistics.median(r["samples"] / r["one_sample"] for r in rounds),
    }


def show(record: dict[str, Any]) -> None:
    """Print the record."""
    for backend, own in record["backends"].items():
        ms, over = own["ms_per_token"], own["over_memory"]
        print(f"{backend}: stream {ms['stream']:.2f} ms per token, {over['stream']:.2f} x the memory's time;", end=" ")
        print(f"generate {ms['generate']:.2f} ms, {over['generate']:.2f} x;", end=" ")
        print(f"{SAMPLES} samples {own['samples_over_one_sample']:.1f} x one sample")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", nargs="+", default=["torch"], choices=list(PEERS))
    parser.add_argument("--device", choices=("cpu", "gpu"))
    parser.add_argument("--json", type=Path, help="file for the record of the run")
    arguments = parser.parse_args()
    record = {
        "benchmark": "inference",
        "versions": describe_backends(arguments.backend),
        "machine": describe_machine(),
        **measure(arguments.backend, arguments.device),
    }
    show(record)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
