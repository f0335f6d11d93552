"""How long is a training step in PyTorch on a GPU, in each of its forms, beside its peers in the same process?

    python benchmarks/gpu_forms.py [--shape ptb enwik8] [--seconds 15] [--parity FILE] [--json FILE]

The forms of `gpu.py` in every precision; with the record of its `parity`, only those that were right in every problem.
The peers: the naive model, cuDNN's LSTM with as many parameters, and the bare matrix products of the step, these as a
CUDA graph. Whatever is compared has the same precision, the same windows, drawn beforehand as training draws them while
the device computes, and nothing that waits for the device. Samples of all are interleaved; a ratio is the median over
the rounds.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gpu import can_use_triton, forms
from numpy.typing import NDArray
from peers_torch import lstm_step, matmul_step, naive_step
from shapes import LEARNING_RATE, MAX_GRAD_NORM, SEED, SHAPES, WEIGHT_DECAY, Data, DrawnData, Shape, Step
from training_step import describe_machine

import rhn
from rhn.backend import PRECISIONS
from rhn_torch.backend import TorchBackend
from rhn_torch.precision import Precision, fp32_precision

SHORTEST_SAMPLE = 0.1  # seconds
FEWEST_ROUNDS = 3
PRECISIONS_OF_PEERS = ("float32", "tf32")


def rhn_step(form: str, precision: str, parameters: Mapping[str, NDArray], data: Data, device: str) -> Step:
    """One training step in one form."""
    shape = data.shape
    model = forms()[form].build(shape.config, parameters, device=device, precision=precision)
    state = model.zero_state(shape.batch_size)

    def step() -> None:
        nonlocal state
        tokens, targets = data.next_window()
        masks = data.masks(tokens)
        _, state = model.train_step(tokens, targets, state, masks, LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM)

    return step


def peer_step(make_step: Callable[..., Step], precision: str, data: Data, device: str) -> Step:
    """A peer's training step, on the device and in that precision."""
    step = make_step(data.shape, data, device)
    rounded = Precision(precision, torch.device(device))
    setting = "ieee" if precision == "float32" else "tf32"

    def step_in_precision() -> None:
        with rounded.products(), fp32_precision(torch.backends.cudnn.rnn, setting):
            step()

    return step_in_precision


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


def forms_to_time(device: str, precisions: list[str], parity: Path | None) -> list[tuple[str, str]]:
    """(form, precision) of all that can be timed; with a record of parity, of those that were right in every row."""
    names = ["eager", "graph", *(["triton"] if can_use_triton(device) and device != "cpu" else [])]
    found = [(form, precision) for precision in precisions for form in names]
    if parity is None:
        return found
    rows = [json.loads(line) for line in parity.read_text().splitlines()] if parity.exists() else []
    verdicts: dict[tuple[str, str], bool] = {}
    for row in rows:
        key = row["form"], row["precision"]
        verdicts[key] = verdicts.get(key, True) and row["is_right"]
    for key in found:
        if not verdicts.get(key, False):
            print(f"{' '.join(key)} is left out: {'it was wrong' if key in verdicts else 'it has not been checked'}")
    return [key for key in found if verdicts.get(key, False)]


def make_steps(
    shape: Shape, device: str, precisions: list[str], timed: list[tuple[str, str]]
) -> dict[tuple[str, str], Step]:
    """By name and precision, all that is timed."""
    parameters = rhn.initial_parameters(shape.config, SEED)
    data = DrawnData(shape)
    steps = {(form, precision): rhn_step(form, precision, parameters, data, device) for form, precision in timed}
    peers = {"naive": naive_step, "lstm": lstm_step}
    for name, make_step in peers.items():
        if shape.peers is None or name in shape.peers:
            of_peer = [p for p in precisions if p in PRECISIONS_OF_PEERS]
            steps |= {(name, p): peer_step(make_step, p, data, device) for p in of_peer}
    return steps | {("products", p): products_step(p, shape, device) for p in precisions}


def seconds_per_step(step: Step, repeats: int, device: str) -> float:
    """Nothing waits for the device between steps, as in training."""
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    if device != "cpu":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def measure(steps: dict[tuple[str, str], Step], seconds: float, device: str) -> dict[str, Any]:
    """By precision and name, milliseconds per step, and the ratio of this time to that of the bare products."""
    for step in steps.values():
        seconds_per_step(step, 3, device)  # the third is the first that replays
    repeats = {n: max(1, round(SHORTEST_SAMPLE / seconds_per_step(step, 2, device))) for n, step in steps.items()}
    rounds = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(rounds) < FEWEST_ROUNDS:
        rounds.append({key: seconds_per_step(step, repeats[key], device) for key, step in steps.items()})
    record: dict[str, Any] = {}
    for name, precision in sorted(steps, key=lambda key: PRECISIONS.index(key[1])):
        times = [r[name, precision] * 1e3 for r in rounds]
        record.setdefault(precision, {})[name] = {
            "median_ms": statistics.median(times),
            "min_ms": min(times),
            "max_ms": max(times),
            "over_products": statistics.median(r[name, precision] / r["products", precision] for r in rounds),
        }
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="gpu", choices=("gpu", "cpu"), help="cpu only tries the script")
    parser.add_argument("--shape", nargs="+", default=["ptb", "enwik8"], choices=list(SHAPES))
    parser.add_argument("--seconds", type=float, default=15.0, help="of timing per shape (at least three rounds)")
    parser.add_argument("--precision", nargs="+", default=list(PRECISIONS), choices=PRECISIONS, help="of all products")
    parser.add_argument("--parity", type=Path, help="record of `gpu.py parity`")
    parser.add_argument("--json", type=Path, help="file for the record of the run")
    arguments = parser.parse_args()

    device = "cuda" if arguments.device == "gpu" else "cpu"
    timed = forms_to_time(device, arguments.precision, arguments.parity)
    record: dict[str, Any] = {
        "benchmark": "gpu_forms",
        "versions": {"torch": TorchBackend().describe()},
        "machine": describe_machine(),
        "variant": {"device": arguments.device},
        "parity": "checked" if arguments.parity else "not checked",
        "shapes": {},
    }
    print(f"{record['versions']} on {record['machine']}")
    print(f"{'shape':7} {'precision':9} {'form':8} {'median':>8} {'min':>8} {'max':>8}  ms; times the bare products")
    for name in arguments.shape:
        steps = make_steps(SHAPES[name], device, arguments.precision, timed)
        record["shapes"][name] = measured = measure(steps, arguments.seconds, device)
        for precision, rows in measured.items():
            for form, row in rows.items():
                times = f"{row['median_ms']:8.2f} {row['min_ms']:8.2f} {row['max_ms']:8.2f}"
                print(f"{name:7} {precision:9} {form:8} {times}  {row['over_products']:.2f}", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
