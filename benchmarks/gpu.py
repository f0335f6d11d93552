"""Does everything compute on a GPU what the specification says?

    python benchmarks/gpu.py device    [--backend torch]
    python benchmarks/gpu.py preflight [--backend torch] [--device gpu] [--record FILE]
    python benchmarks/gpu.py parity    [--device gpu] [--seed N] [--record FILE]

`device` names it, and ends with status 3 if it is a CPU. `preflight` puts every small model of `rhn.preflight` through
a backend. `parity` compares every form of the PyTorch training step, in every precision, with the reference in
float64: a few steps on windows drawn anew, twice:

* with all new memory poisoned: whatever a kernel should have written and did not is NaN;
* as in training, two times over, which must give the same bits.

The forms: "plain" is differentiated by autograd, "eager" launches kernel after kernel, "graph" replays a CUDA graph (on
a CPU: takes the steps on buffers that never move), "triton" is the graph with fused micro-steps. A line of JSON goes to
the record as soon as it is known; `gpu_forms.py` times the forms that were right. `gpu.sh` runs everything.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import rhn
from rhn.backend import PRECISIONS, Model
from rhn.preflight import PreflightError, has_all_masks, preflight, variant_config, variants

IS_A_CPU = 3  # status


class Size(NamedTuple):
    """Of a model, and of windows for it."""

    hidden_size: int
    uncoupled: bool  # with separate masks; otherwise gates are coupled and share their masks
    batch_size: int
    length: int
    depth: int


# More rows than a tile of the kernels has; the tiles of enwik8, with more rows (time x batch) than the backward treats
# at a time; PTB.
SIZES = (
    Size(17, False, 20, 5, 3),
    Size(17, True, 65, 5, 3),
    Size(1500, False, 128, 50, 2),
    Size(830, False, 20, 5, 3),
    Size(830, True, 20, 5, 3),
)
TINY_SIZES = (Size(5, True, 3, 4, 2), Size(5, False, 128, 9, 1))
MOST_ROWS_OF_REFERENCE = 1024  # larger problems take it minutes: there, "plain" in float64 is what is compared with

# Per precision: dtype, and largest accepted error relative to the largest entry. Of float64 and float32 it is that of
# SPEC.md 6.1. Of the others it is four times the worst that was measured by software on such problems, up
# to H 830: 4.0e-3 in tf32 that is cut off (1.5e-3 if it is rounded), 1.5e-2 in bf16.
TOLERANCE = {
    "float64": ("float64", 1e-10),
    "float32": ("float32", 2e-5),
    "tf32": ("float32", 1.6e-2),
    "bf16": ("float32", 6e-2),
}
STEPS = 4  # one as it is, one captured, two replayed
RATES = (0.2, 0.1, 0.3, 0.2)


def forms() -> dict[str, Any]:
    """A backend per form."""
    from rhn_torch.backend import TorchBackend

    return {
        "plain": TorchBackend(recurrence="plain", static_steps=False),
        "eager": TorchBackend(static_steps=False),
        "graph": TorchBackend(static_steps=True),
        "triton": TorchBackend(recurrence="triton", static_steps=True),
    }


def precisions_of(form: str) -> list[str]:
    """In which a form is checked: plain is only compared with, and Triton computes in float32 only."""
    return {"plain": ["float64"], "triton": list(PRECISIONS)}.get(form, list(TOLERANCE))


def can_use_triton(device: str) -> bool:
    """On a CPU only where it is interpreted."""
    return find_spec("triton") is not None and (device != "cpu" or "TRITON_INTERPRET" in os.environ)


class Problem(NamedTuple):
    """A model, and windows for it."""

    config: rhn.RHNConfig
    parameters: dict[str, NDArray]
    windows: list[tuple[NDArray, NDArray, rhn.VariationalMasks]]  # tokens (B, T), targets (B, T), masks


def draw_problem(size: Size, seed: int) -> Problem:
    """Parameters large enough that every gate and micro-step counts."""
    generator = np.random.default_rng((seed, size.hidden_size))
    config = rhn.RHNConfig(
        vocab_size=50,
        hidden_size=size.hidden_size,
        recurrence_depth=size.depth,
        couple_gates=not size.uncoupled,
        share_gate_masks=not size.uncoupled,
    )
    parameters = {
        name: generator.standard_normal(shape) * (0.5 if name.endswith("bias") else 0.9 / np.sqrt(shape[-2]))
        for name, shape in rhn.parameter_shapes(config).items()
    }
    streams = generator.integers(0, config.vocab_size, (STEPS, size.batch_size, size.length + 1))
    drop_rates = rhn.DropRates(0.25, 0.75, 0.25, 0.75)
    windows = [
        (stream[:, :-1], stream[:, 1:], rhn.sample_masks(config, stream[:, :-1], drop_rates, seed, step))
        for step, stream in enumerate(streams)
    ]
    return Problem(config, parameters, windows)


def train(model: Model, problem: Problem) -> dict[str, NDArray]:
    """Every result of the steps, by name."""
    state = model.zero_state(len(problem.windows[0][0]))
    results: dict[str, Any] = {}
    for step, (window, rate) in enumerate(zip(problem.windows, RATES, strict=True), start=1):
        tokens, targets, masks = window
        loss, state = model.train_step(tokens, targets, state, masks, rate, 1e-4, 10.0)
        results |= {f"loss {step}": loss, f"norm {step}": model.last_grad_norm, f"state {step}": state[0]}
    return {name: model.to_numpy(value) for name, value in results.items()} | model.parameters()


def expected_of(size: Size, problem: Problem, device: str) -> dict[str, NDArray]:
    """The right results."""
    if size.batch_size * size.length <= MOST_ROWS_OF_REFERENCE:
        return train(rhn.load_backend("reference").build(problem.config, problem.parameters, "float64"), problem)
    return train(forms()["plain"].build(problem.config, problem.parameters, "float64", device), problem)


def compare(actual: dict[str, NDArray], expected: dict[str, NDArray]) -> tuple[float, str]:
    """The largest error relative to a tensor's largest entry, and where; NaN counts as infinite."""
    errors = {
        name: float(np.nan_to_num(np.max(np.abs(actual[name] - e)) / np.max(np.abs(e)), nan=np.inf, posinf=np.inf))
        for name, e in expected.items()
    }
    worst = max(errors, key=lambda name: errors[name])
    return errors[worst], worst


def check(form: str, problem: Problem, precision: str, device: str, expected: dict[str, NDArray]) -> dict[str, Any]:
    """The record of one form in one precision."""
    from poison import Poison

    dtype, tolerance = TOLERANCE[precision]
    matmul = "float32" if dtype == "float64" else precision

    def run() -> dict[str, NDArray]:
        model = forms()[form].build(problem.config, problem.parameters, dtype, device, precision=matmul)
        return train(model, problem)

    first, second = run(), run()
    with Poison():
        poisoned = run()
    (error, where), (poisoned_error, _) = compare(first, expected), compare(poisoned, expected)
    repeats = all(np.array_equal(value, second[name]) for name, value in first.items())
    is_right = max(error, poisoned_error) <= tolerance and repeats
    return {"error": error, "where": where, "poisoned_error": poisoned_error, "repeats": repeats, "is_right": is_right}


def parity(device: str, seed: int, is_tiny: bool) -> Iterator[dict[str, Any]]:
    """A row per problem, form and precision; a form that cannot be run is wrong."""
    names = [form for form in forms() if form != "triton" or can_use_triton(device)]
    if "triton" not in names:
        print("triton is left out: it needs the package triton and a GPU, or TRITON_INTERPRET=1 in the environment")
    for size in TINY_SIZES if is_tiny else SIZES:
        problem = draw_problem(size, seed)
        expected = expected_of(size, problem, device)
        for form, precision in [(name, precision) for name in names for precision in precisions_of(name)]:
            row = {**size._asdict(), "form": form, "precision": precision}
            try:
                yield row | check(form, problem, precision, device, expected)
            except Exception as error:  # the others are to be checked all the same
                yield row | {"failure": f"{type(error).__name__}: {error}", "is_right": False}


def preflights(backend: str, device: str, is_tiny: bool) -> Iterator[dict[str, Any]]:
    """A row per small model: all of them in float32, one in every other precision."""
    cases = [("float32", variant) for variant in variants()[: 1 if is_tiny else None]]
    cases += [(precision, variants()[0]) for precision in PRECISIONS if precision != "float32"]
    for precision, variant in cases:
        row = {"backend": backend, "variant": variant, "precision": precision}
        build = partial(rhn.load_backend(backend).build, device=device, precision=precision)
        try:
            report = preflight(build, variant_config(variant), "float32", precision, all_masks=has_all_masks(variant))
            yield row | {"error": report.worst.max_rel, "seconds": report.seconds, "is_right": True}
        except PreflightError as error:
            yield row | {"failure": str(error), "is_right": False}


def show(row: dict[str, Any]) -> str:
    """In one line."""
    return "  ".join(f"{value:.1e}" if isinstance(value, float) else str(value) for value in row.values())


def write(rows: Iterator[dict[str, Any]], record: Path | None) -> int:
    """Every row, as it comes, to the screen and to the record; status 1 if one is wrong."""
    wrong = count = 0
    if record:
        record.write_text("")
    for row in rows:
        count, wrong = count + 1, wrong + (not row["is_right"])
        print(show(row) + ("" if row["is_right"] else "  WRONG"), flush=True)
        if record:
            with record.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print(f"{count - wrong} of {count} right")
    return 1 if wrong or not count else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("device", "preflight", "parity"))
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--device", default="gpu", help="gpu, or cpu to try the script (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="sizes with which the script is tried")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31), help="of all inputs (default: any)")
    parser.add_argument("--record", type=Path, help="file for a line of JSON per row")
    options = parser.parse_args()

    described = rhn.load_backend(options.backend).describe()
    print(f"{described}; seed {options.seed}", flush=True)
    if options.what == "device":
        return IS_A_CPU if "cpu" in described["device"].lower() and options.device != "cpu" else 0
    if options.what == "preflight":
        return write(preflights(options.backend, options.device, options.tiny), options.record)
    rows = ({**row, "seed": options.seed} for row in parity(options.device, options.seed, options.tiny))
    return write(rows, options.record)


if __name__ == "__main__":
    sys.exit(main())
