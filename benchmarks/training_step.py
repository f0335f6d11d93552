"""How long is one training step, from data to updated weights, beside its peers in the same process?

    python benchmarks/training_step.py --backend torch [--shape ptb ...] [--seconds 60] [--json FILE]

For every shape: milliseconds (median, min-max), tokens per second, peak memory of a process that does nothing else,
and ratios to three peers that the backend's file `peers_<backend>.py` supplies:

    naive   the same model, written the obvious way: gates apart, derivatives by the framework
    lstm    the framework's own LSTM, stacked, with as many parameters (tiny: as many units and layers)
    matmul  nothing but the matrix products of the step, into preallocated results where the framework can

Samples of all peers are interleaved, so that a noisy moment hits all alike; a ratio is the median over the rounds.
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
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rhn

Step = Callable[[], None]  # one training step; returns when the device is done

PEERS = ("naive", "lstm", "matmul")
LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM = 0.2, 1e-7, 10.0
SEED = 0
SHORTEST_SAMPLE = 0.1  # seconds: a sample of a shorter step is the mean of several
FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Shape:
    """What is trained on what.

    Attributes:
        config: the architecture.
        batch_size: B.
        length: T.
        rates: of dropping.
        lstm_layers: of the LSTM peer.
        lstm_units: of each of them; None: so many that it has the parameters of the RHN.
    """

    config: rhn.RHNConfig
    batch_size: int
    length: int
    rates: rhn.DropRates
    lstm_layers: int
    lstm_units: int | None = None

    def units_of_lstm(self) -> int:
        """Units of each layer of the LSTM peer: given, or the largest number that has no more parameters."""
        if self.lstm_units is not None:
            return self.lstm_units
        budget = rhn.parameter_count(self.config)
        return max(units for units in range(1, 4 * self.config.hidden_size) if self._lstm_size(units) <= budget)

    def _lstm_size(self, units: int) -> int:
        vocab_size, tied = self.config.vocab_size, self.config.tie_weights
        embedding_size = units if tied else self.config.embedding_width
        recurrent = sum(
            4 * units * ((embedding_size if layer == 0 else units) + units + 1) for layer in range(self.lstm_layers)
        )
        return recurrent + vocab_size * embedding_size + (0 if tied else vocab_size * units) + vocab_size


SHAPES = {
    "ptb": Shape(
        rhn.RHNConfig(vocab_size=10_000, hidden_size=830, recurrence_depth=10),
        batch_size=20,
        length=35,
        rates=rhn.DropRates(0.25, 0.75, 0.25, 0.75),
        lstm_layers=2,
    ),
    "small": Shape(
        rhn.RHNConfig(vocab_size=10_000, hidden_size=200, recurrence_depth=5),
        batch_size=20,
        length=35,
        rates=rhn.DropRates(0.1, 0.2, 0.1, 0.2),
        lstm_layers=2,
    ),
    "enwik8": Shape(
        rhn.RHNConfig(vocab_size=205, hidden_size=1500, recurrence_depth=10, embedding_size=205, tie_weights=False),
        batch_size=128,
        length=50,
        rates=rhn.DropRates(0.1, 0.4, 0.1, 0.4),
        lstm_layers=2,
    ),
    "tiny": Shape(
        rhn.RHNConfig(vocab_size=50, hidden_size=64, recurrence_depth=3),
        batch_size=20,
        length=35,
        rates=rhn.DropRates(0.1, 0.2, 0.1, 0.2),
        lstm_layers=3,
        lstm_units=64,
    ),
}


@dataclass
class Data:
    """Windows of random tokens, as many as are asked for, with their masks; the same for every peer."""

    shape: Shape
    steps: int = 0

    def next_window(self) -> tuple[NDArray, NDArray]:
        """Tokens and targets, (B, T) each."""
        self.steps += 1
        size = (self.shape.batch_size, self.shape.length + 1)
        stream = np.random.default_rng(self.steps).integers(0, self.shape.config.vocab_size, size)
        return stream[:, :-1], stream[:, 1:]

    def masks(self, tokens: NDArray) -> rhn.VariationalMasks:
        """Drawn as in training."""
        return rhn.sample_masks(self.shape.config, tokens, self.shape.rates, SEED, self.steps)


def rhn_step(backend: str, shape: Shape) -> Step:
    """What is measured: `train_step` of the backend, with everything that training does around it."""
    model = rhn.load_backend(backend).build(shape.config, rhn.initial_parameters(shape.config, SEED))
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


def measure_times(backend: str, shape_name: str, seconds: float) -> dict[str, list[float]]:
    """Seconds per step of the RHN ("rhn") and of every peer, one entry per round. Runs in a child process."""
    shape = SHAPES[shape_name]
    peers = importlib.import_module(f"peers_{backend}")
    steps = {"rhn": rhn_step(backend, shape)} | {peer: getattr(peers, f"{peer}_step")(shape) for peer in PEERS}
    repeats = {name: max(1, round(SHORTEST_SAMPLE / _duration(step))) for name, step in steps.items() if step() is None}

    samples: dict[str, list[float]] = {name: [] for name in steps}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples["rhn"]) < FEWEST_ROUNDS:
        for name, step in steps.items():
            samples[name].append(statistics.fmean(_duration(step) for _ in range(repeats[name])))
    return samples


def measure_memory(backend: str, shape_name: str) -> int:
    """Peak resident bytes of a process that trains the RHN for three steps. Runs in a child process."""
    step = rhn_step(backend, SHAPES[shape_name])
    for _ in range(3):
        step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _duration(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Result of `function` in a fresh process, which no earlier measurement has touched."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def summarise(shape: Shape, samples: dict[str, list[float]], peak_bytes: int) -> dict[str, Any]:
    """The record of one shape; times in milliseconds."""
    times = {
        name: {"median_ms": statistics.median(s) * 1e3, "min_ms": min(s) * 1e3, "max_ms": max(s) * 1e3}
        for name, s in samples.items()
    }
    ratios = {
        peer: statistics.median(own / other for own, other in zip(samples["rhn"], samples[peer], strict=True))
        for peer in PEERS
    }
    return {
        "config": shape.config.to_dict(),
        "batch_size": shape.batch_size,
        "length": shape.length,
        "lstm": {"layers": shape.lstm_layers, "units": shape.units_of_lstm()},
        "times": times,
        "rounds": len(samples["rhn"]),
        "tokens_per_second": shape.batch_size * shape.length / statistics.median(samples["rhn"]),
        "peak_bytes": peak_bytes,
        "rhn_time_over": ratios,
    }


def show(name: str, record: dict[str, Any]) -> None:
    own = record["times"]["rhn"]
    print(f"{name}: {record['tokens_per_second']:,.0f} tokens/s, peak memory {record['peak_bytes'] / 1e9:.2f} GB")
    print(f"  {'rhn':<7}{_format(own)}")
    for peer in PEERS:
        ratio = record["rhn_time_over"][peer]
        print(f"  {peer:<7}{_format(record['times'][peer])}   rhn takes {ratio:.2f} x, is {1 / ratio:.2f} x as fast")


def _format(times: dict[str, float]) -> str:
    return f"{times['median_ms']:9.1f} ms ({times['min_ms']:.1f}-{times['max_ms']:.1f})"


def describe_machine() -> dict[str, Any]:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch", choices=("torch", "tf", "jax"))
    parser.add_argument("--shape", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--seconds", type=float, default=60.0, help="of timing per shape (at least three rounds)")
    parser.add_argument("--json", type=Path, help="file for the record of the run")
    arguments = parser.parse_args()

    record: dict[str, Any] = {
        "backend": arguments.backend,
        "versions": _in_child(_describe_backend, arguments.backend),
        "machine": describe_machine(),
        "shapes": {},
    }
    print(f"{arguments.backend}: {record['versions']} on {record['machine']}")
    for name in arguments.shape:
        peak_bytes = _in_child(measure_memory, arguments.backend, name)
        samples = _in_child(measure_times, arguments.backend, name, arguments.seconds)
        record["shapes"][name] = summarise(SHAPES[name], samples, peak_bytes)
        show(name, record["shapes"][name])
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def _describe_backend(backend: str) -> dict[str, str]:
    return rhn.load_backend(backend).describe()


if __name__ == "__main__":
    main()
