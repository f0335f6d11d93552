"""How long is a training step in PyTorch on a GPU, in each of its forms, beside its peers in the same process?

    python benchmarks/gpu_forms.py [--shape ptb enwik8] [--seconds 20] [--json FILE]

The forms of `gpu_parity.py` in every precision. The peers are those of `training_step.py`, on the GPU: the naive model,
cuDNN's LSTM with as many parameters, and the bare matrix products of the step, these as a CUDA graph. Samples of all
are interleaved; a ratio is the median over the rounds. Windows are drawn beforehand, as in training, which draws them
while the device computes.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from gpu_parity import FORMS
from peers_torch import lstm_step, matmul_step, naive_step
from training_step import LEARNING_RATE, MAX_GRAD_NORM, SEED, SHAPES, WEIGHT_DECAY, Data, Shape, Step, describe_machine

import rhn
from rhn.backend import PRECISIONS
from rhn_torch.backend import TorchBackend
from rhn_torch.precision import Precision

WINDOWS = 4  # that are drawn, and taken in turns
SHORTEST_SAMPLE = 0.1  # seconds


def rhn_step(form: str, precision: str, shape: Shape, device: str) -> Step:
    """One training step in one form."""
    parameters = rhn.initial_parameters(shape.config, SEED)
    model = FORMS[form].build(shape.config, parameters, device=device, precision=precision)
    data = Data(shape)
    drawn = [(tokens, targets, data.masks(tokens)) for tokens, targets in (data.next_window() for _ in range(WINDOWS))]
    windows = itertools.cycle(drawn)
    state = model.zero_state(shape.batch_size)

    def step() -> None:
        nonlocal state
        tokens, targets, masks = next(windows)
        _, state = model.train_step(tokens, targets, state, masks, LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM)

    return step


def peer_step(make_step: Callable[[Shape], Step], shape: Shape, device: str) -> Step:
    """A peer's training step, on the device."""
    with defaults(device, torch.float32):
        step = make_step(shape)

    def step_on_device() -> None:
        with defaults(device, torch.float32):
            step()

    return step_on_device


def products_step(precision: str, shape: Shape, device: str) -> Step:
    """The bare matrix products of one training step."""
    with defaults(device, torch.bfloat16 if precision == "bf16" else torch.float32):
        step = matmul_step(shape)
    with Precision(precision, torch.device(device)).products():
        step()
        if device == "cpu":
            return step
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
    return functools.partial(_replay, graph, step)


def _replay(graph: torch.cuda.CUDAGraph, _captured: Step) -> None:
    """The captured function is there to keep its matrices, on whose addresses the graph works."""
    graph.replay()


@contextmanager
def defaults(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Within it, new tensors are of this dtype and on this device."""
    torch.set_default_device(device)
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


def make_steps(shape: Shape, device: str) -> dict[str, Step]:
    """By name, all that is timed; the first is what the others are compared with."""
    can_use_triton = device != "cpu" and find_spec("triton") is not None
    steps = {"eager float32": rhn_step("eager", "float32", shape, device)}
    for form in ("graph", "triton") if can_use_triton else ("graph",):
        steps |= {f"{form} {precision}": rhn_step(form, precision, shape, device) for precision in PRECISIONS}
    steps |= {"naive": peer_step(naive_step, shape, device), "lstm": peer_step(lstm_step, shape, device)}
    steps |= {f"products {precision}": products_step(precision, shape, device) for precision in PRECISIONS}
    return steps


def seconds_per_step(step: Step, repeats: int, device: str) -> float:
    """Nothing waits for the device between steps, as in training."""
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    if device != "cpu":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def measure(shape: Shape, seconds: float, device: str) -> dict[str, Any]:
    """By name, milliseconds per step and the ratio of the first one's time to this."""
    steps = make_steps(shape, device)
    for step in steps.values():
        seconds_per_step(step, 3, device)  # the third is the first that replays
    repeats = {n: max(1, round(SHORTEST_SAMPLE / seconds_per_step(step, 2, device))) for n, step in steps.items()}
    rounds = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(rounds) < 3:
        rounds.append({name: seconds_per_step(step, repeats[name], device) for name, step in steps.items()})
    first = next(iter(steps))
    record = {}
    for name in steps:
        times = [r[name] * 1e3 for r in rounds]
        record[name] = {
            "median_ms": statistics.median(times),
            "min_ms": min(times),
            "max_ms": max(times),
            "times_as_fast_as_eager": statistics.median(r[first] / r[name] for r in rounds),
        }
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu only tries the script")
    parser.add_argument("--shape", nargs="+", default=["ptb", "enwik8"], choices=list(SHAPES))
    parser.add_argument("--seconds", type=float, default=20.0, help="of timing per shape (at least three rounds)")
    parser.add_argument("--json", type=Path, help="file for the record of the run")
    arguments = parser.parse_args()

    record: dict[str, Any] = {
        "benchmark": "gpu_forms",
        "versions": {"torch": TorchBackend().describe()},
        "machine": describe_machine(),
        "variant": {"device": arguments.device},
        "shapes": {},
    }
    print(f"{record['versions']} on {record['machine']}")
    print(f"{'shape':7} {'form':17} {'median':>8} {'min':>8} {'max':>8}  ms; times as fast as eager float32")
    for name in arguments.shape:
        record["shapes"][name] = measured = measure(SHAPES[name], arguments.seconds, arguments.device)
        for form, row in measured.items():
            times = f"{row['median_ms']:8.2f} {row['min_ms']:8.2f} {row['max_ms']:8.2f}"
            print(f"{name:7} {form:17} {times}  {row['times_as_fast_as_eager']:.2f}", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
