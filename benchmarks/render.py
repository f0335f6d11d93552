"""Writes docs/PERFORMANCE.md from the records in benchmarks/results.

python benchmarks/render.py
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "PERFORMANCE.md"

INTRODUCTION = """# Performance

`python benchmarks/render.py` writes this page from the records in [benchmarks/results](../benchmarks/results). Every
table names its record and the command that measures it again. All numbers of a table come from one run, in which the
compared programs take turns. Times are medians, with the fastest and the slowest sample in parentheses. Ratios are
medians over the turns.

The *bare products* are the matrix products of a step and nothing else, in the same shapes and order, computed in the
fastest way that the framework has. A step would take this long if everything else cost nothing. *Naive* is the same
model written in the obvious way, with one product per gate, and differentiated by the framework. *Compiled* is the
naive model with its time step under `torch.compile`. *LSTM* is the framework's own stacked LSTM with as many
parameters (tiny: as many units and layers).
"""

SHAPE_TITLES = {
    "ptb": "The paper's PTB model: V 10,000, H 830, depth 10, B 20, T 35",
    "small": "Small: V 10,000, H 200, depth 5, B 20, T 35",
    "enwik8": "The paper's enwik8 model: V 205, H 1500, depth 10, B 128, T 50",
    "tiny": "Tiny, where overhead dominates: V 50, H 64, depth 3, B 20, T 35",
}
GOALS = {"ptb": 1.10, "small": 1.35}  # of a step's time over that of its bare products
PARTS = {  # of `step_profile.py`
    "products": "bare products",
    "loss": "soft-max, loss, embedding",
    "recurrence": "recurrence between its products",
    "update": "decay, clipping, update",
    "host": "drawing masks",
}
PEER_TITLES = {"matmul": "bare products", "naive": "naive", "compiled": "compiled", "lstm": "LSTM"}

NO_GPU = """## GPU

**There are no figures: nothing has been run on a GPU yet.** CUDA graphs, Triton kernels and other code for GPUs have
been tested only on a CPU, with stand-ins, an interpreter and a compiler. `benchmarks/gpu.sh` runs unattended on a
machine with a GPU, in under nine minutes. It checks every form of the training step, and measures the forms that are
right.
"""


def page(records: Iterable[tuple[str, dict[str, Any]]]) -> str:
    """The page in Markdown, from records by file name."""
    render = {
        "training_step": _training_step,
        "step_profile": _step_profile,
        "inference": _inference,
        "gpu_forms": _gpu_forms,
    }
    sections = [INTRODUCTION]
    on_gpu = False
    for file, record in records:
        if record.get("benchmark") in render:
            sections.append(render[record["benchmark"]](file, record))
            on_gpu = on_gpu or _is_of_gpu(record)
    return "\n".join(sections if on_gpu else [*sections, NO_GPU])


def read_records() -> list[tuple[str, dict[str, Any]]]:
    """All records that are there, in the order of their names."""
    return [(file.name, json.loads(file.read_text())) for file in sorted(RESULTS.glob("*.json"))]


def _is_of_gpu(record: dict[str, Any]) -> bool:
    return any(versions["device"] != "cpu" for versions in record["versions"].values())


def _training_step(file: str, record: dict[str, Any]) -> str:
    v = record["variant"]
    options = [f"precision {v['precision']}"] * (v["precision"] != "float32") + ["recompute"] * v["recompute"]
    where = record["machine"]["cpu"]
    lines = [
        f"## Training step on {where}{': ' if options else ''}{', '.join(options)}",
        "",
        *_origin(file, record),
        "",
    ]
    for name, shape in record["shapes"].items():
        lines += [f"### {SHAPE_TITLES[name]}", "", *_shape_table(shape), ""]
    return "\n".join(lines)


def _shape_table(shape: dict[str, Any]) -> list[str]:
    peers = [peer for peer in PEER_TITLES if any(peer in own["times"] for own in shape["backends"].values())]
    first = next(iter(shape["backends"]))
    header = ["", "ms", "tokens/s", "peak memory", "first step", *(f"x {PEER_TITLES[p]}" for p in peers), f"x {first}"]
    rows = []
    for backend, own in shape["backends"].items():
        rows.append(
            [
                f"`rhn_{backend}`",
                _times(own["times"]["rhn"]),
                f"{own['tokens_per_second']:,.0f}",
                f"{own['peak_bytes'] / 1e9:.2f} GB",
                f"{own['first_step_ms'] / 1e3:.1f} s",
                *(_ratio(own["rhn_time_over"].get(peer)) for peer in peers),
                _ratio(own["rhn_time_over"].get(f"rhn_{first}")),
            ]
        )
        rows += [
            [f"{PEER_TITLES[peer]}, {backend}", _times(own["times"][peer])] + [""] * (len(header) - 2)
            for peer in peers
            if peer in own["times"]
        ]
    return _table(header, rows)


def _step_profile(file: str, record: dict[str, Any]) -> str:
    lines = [
        "## What the rest of a step is",
        "",
        *_origin(file, record),
        "",
        "On one core for each backend, because with several cores parts of a step run at the same time. The parts are",
        "measured beside the step, and by a model that knows two words only; the script says how.",
        "",
    ]
    for name, of_backends in record["shapes"].items():
        ratios = {backend: own["step"] / own["products"] for backend, own in of_backends.items()}
        rows = [
            [
                f"`rhn_{backend}`",
                _milliseconds(own["step"]),
                *(f"{100 * own[part] / own['step']:.0f} %" for part in PARTS),
                _ratio(ratios[backend]),
            ]
            for backend, own in of_backends.items()
        ]
        lines += [
            f"### {SHAPE_TITLES[name]}: parts",
            "",
            *_table(["", "ms", *PARTS.values(), "x bare products"], rows),
            "",
            _goal(GOALS[name], ratios),
            "",
        ]
    return "\n".join(lines)


def _goal(goal: float, ratios: dict[str, float]) -> str:
    missed = [f"`rhn_{backend}`" for backend, ratio in ratios.items() if ratio > goal]
    verdict = f"not reached by {', '.join(missed)}" if missed else "reached"
    return f"The goal is at most {goal:.2f} times the bare products. Here it is {verdict}."


def _inference(file: str, record: dict[str, Any]) -> str:
    memory = record["memory_ms"]
    rows = [
        [
            f"`rhn_{backend}`",
            f"{own['ms_per_token']['stream']:.2f}",
            _ratio(own["over_memory"]["stream"]),
            f"{own['ms_per_token']['generate']:.2f}",
            _ratio(own["over_memory"]["generate"]),
            f"{own['ms_per_token']['samples']:.1f}",
            _ratio(own["samples_over_one_sample"]),
        ]
        for backend, own in record["backends"].items()
    ]
    header = [
        *("", "stream, ms per token", "x memory", "one token at a time, ms", "x memory"),
        *("200 MC samples, ms per token", "x one sample"),
    ]
    return "\n".join(
        [
            "## Reading: evaluation, generation, Monte Carlo dropout",
            "",
            *_origin(file, record),
            "",
            "The paper's PTB model. At batch 1 every weight is read from memory and used once: memory is the limit.",
            f"Here it takes {memory['stream']:.2f} ms to read the recurrent weights, which a stream in windows needs",
            f"for every token, and {memory['generate']:.2f} ms to read all weights, which a single token needs.",
            "Weights that stay in the CPU's cache from token to token are not read again, so a ratio may be below 1.",
            "",
            *_table(header, rows),
            "",
        ]
    )


def _gpu_forms(file: str, record: dict[str, Any]) -> str:
    lines = ["## Forms of the PyTorch training step on a GPU", "", *_origin(file, record), ""]
    for name, measured in record["shapes"].items():
        rows = [
            [precision, form, _times(row), _ratio(row["over_products"])]
            for precision, forms in measured.items()
            for form, row in forms.items()
        ]
        lines += [f"### {SHAPE_TITLES[name]}", "", *_table(["precision", "", "ms", "x bare products"], rows), ""]
    return "\n".join(lines)


def _origin(file: str, record: dict[str, Any]) -> list[str]:
    backends = " ".join(record["versions"])
    variant = record.get("variant", {})
    options = "".join(
        [
            f" --device {variant['device']}" if variant.get("device") else "",
            f" --precision {variant['precision']}" if variant.get("precision", "float32") != "float32" else "",
            " --recompute" if variant.get("recompute") else "",
        ]
    )
    some = record.get("shapes", SHAPE_TITLES).keys() != SHAPE_TITLES.keys()
    shapes = f" --shape {' '.join(record['shapes'])}" if some else ""
    which = "" if record["benchmark"] == "gpu_forms" else f" --backend {backends}{options}{shapes}"
    command = f"python benchmarks/{record['benchmark']}.py{which}"
    versions = "; ".join(
        ", ".join(f"{name} {version}" for name, version in described.items())
        for described in record["versions"].values()
    )
    machine = record["machine"]
    return [
        f"[{file}](../benchmarks/results/{file}), made by `{command}`",
        f"on {machine['cores']} cores of {machine['cpu']}, Python {machine['python']}; {versions}.",
    ]


def _times(times: dict[str, float]) -> str:
    median, least, most = (_milliseconds(times[name]) for name in ("median_ms", "min_ms", "max_ms"))
    return f"{median} ({least}-{most})"


def _milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only check that the page matches the records")
    rendered = page(read_records())
    if not parser.parse_args().check:
        PAGE.write_text(rendered)
        print(PAGE)
    elif PAGE.read_text() != rendered:
        sys.exit(f"{PAGE} does not match the records: run python benchmarks/render.py")


if __name__ == "__main__":
    main()
