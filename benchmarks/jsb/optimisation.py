"""Section 5.1 of the paper: do deep transitions train? RHN, DT-RNN and DT(S)-RNN on the JSB chorales.

    python benchmarks/jsb/optimisation.py --data JSB_Chorales.mat [--trials 12] [--epochs 60] [--processes 2]
    python benchmarks/jsb/optimisation.py --data JSB_Chorales.mat --max-minutes 60     (and again: it goes on)

For every network and depth, `--trials` random settings of learning rate, initial scale and, for RHNs, initial
transform bias, each with SGD and momentum 0.9. The paper draws the lowest training loss of each trial; so do we: the
mean over an epoch, while the weights change. The paper made 60 trials of at most 1000 epochs at four sizes; here it is
12 trials of at most 60 epochs at one size, so that two cores do it in half an hour. The paper's ranges begin lower,
with learning rates of 1e-4 and standard deviations of 1e-8: so slow a start comes to nothing in 60 epochs. Every
finished trial is a line of benchmarks/results/jsb_optimisation.jsonl; trials that are there are not made again. When
all are there, docs/figures/jsb_optimisation.svg is drawn, and a table printed.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chorales import Piece, batches, load
from models import CELLS, MusicModel, hidden_size_of, initialise

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "jsb_optimisation.jsonl"
FIGURE = ROOT / "docs" / "figures" / "jsb_optimisation.svg"

DEPTHS = (1, 2, 4, 6)
PARAMETERS = 300_000
BATCH_SIZE = 32
MOMENTUM = 0.9
PATIENCE = 10  # epochs without a lower training loss
WORSE_THAN_NOTHING = 88 * math.log(2.0)  # nats per frame of a model that knows nothing
HIGHEST_DRAWN = 12.5  # what diverged stands at the upper edge

Key = tuple[str, int, int]  # cell, depth, trial


def kinds() -> list[tuple[str, int]]:
    """Networks and depths. With a single level, the shortcut of a DT(S)-RNN is the recurrence itself."""
    return [(cell, depth) for cell in CELLS for depth in DEPTHS if not (cell == "DT(S)-RNN" and depth == 1)]


def setting_of(cell: str, depth: int, trial: int) -> dict[str, Any]:
    """A random setting, the same at every call; all networks and depths of a trial share what they have in common."""
    random = np.random.default_rng(trial)
    return {
        "cell": cell,
        "depth": depth,
        "trial": trial,
        "learning_rate": float(10.0 ** random.uniform(-2.0, 0.0)),
        "std": float(10.0 ** random.uniform(-4.0, -1.0)),
        "transform_bias": float(-random.integers(0, 4)),
    }


def train(setting: dict[str, Any], pieces: dict[str, list[Piece]], epochs: int) -> dict[str, Any]:
    """One trial: its setting, and what it came to, in nats per frame."""
    torch.manual_seed(setting["trial"])
    random = np.random.default_rng(setting["trial"])
    started = time.monotonic()
    hidden_size = hidden_size_of(setting["cell"], setting["depth"], PARAMETERS)
    model = MusicModel(setting["cell"], hidden_size, setting["depth"])
    initialise(model, setting["std"], setting["transform_bias"])
    optimizer = torch.optim.SGD(model.parameters(), setting["learning_rate"], MOMENTUM)
    losses: list[float] = []
    lowest_valid, test = math.inf, math.nan
    frames = sum(len(piece) - 1 for piece in pieces["train"])
    while len(losses) < epochs and not _finished(losses):
        model.train()
        total = 0.0
        for batch in batches(pieces["train"], BATCH_SIZE, random):
            optimizer.zero_grad()
            nats = model.nats(*batch)
            (nats / batch.lengths.sum()).backward()
            optimizer.step()
            total += float(nats.detach())
        losses.append(total / frames if math.isfinite(total) else WORSE_THAN_NOTHING)
        if (valid := score(model, pieces["valid"])) < lowest_valid:
            lowest_valid, test = valid, score(model, pieces["test"])
    return {
        **setting,
        "hidden_size": hidden_size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "epochs": len(losses),
        "lowest_train": min(losses),
        "test_at_best_valid": test,
        "seconds": round(time.monotonic() - started, 1),
    }


def _finished(losses: list[float]) -> bool:
    """Whether a trial has diverged, or has not become better for `PATIENCE` epochs."""
    if losses and losses[-1] >= WORSE_THAN_NOTHING:
        return True
    return len(losses) - 1 - int(np.argmin(losses)) >= PATIENCE if losses else False


@torch.no_grad()
def score(model: MusicModel, pieces: list[Piece]) -> float:
    """Nats per frame over all pieces, each from the empty state; what is not a number counts as knowing nothing."""
    model.eval()
    cut = list(batches(pieces, BATCH_SIZE, np.random.default_rng(0)))
    nats = sum(float(model.nats(*batch)) for batch in cut) / sum(int(batch.lengths.sum()) for batch in cut)
    return nats if math.isfinite(nats) else WORSE_THAN_NOTHING


def one_trial(key: Key, data: Path, epochs: int) -> dict[str, Any]:
    """In a process of its own, on one core."""
    torch.set_num_threads(1)
    return train(setting_of(*key), load(data), epochs)


def read_results() -> dict[Key, dict[str, Any]]:
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    records = map(json.loads, lines)
    return {(record["cell"], record["depth"], record["trial"]): record for record in records}


def missing(trials: int, done: dict[Key, dict[str, Any]]) -> Iterator[Key]:
    """Trial by trial, so that an experiment that was cut off has as many of each kind."""
    for trial in range(trials):
        for cell, depth in kinds():
            if (cell, depth, trial) not in done:
                yield cell, depth, trial


def line_of(record: dict[str, Any]) -> str:
    """What a trial came to, for people."""
    name = f"{record['cell']} depth {record['depth']} trial {record['trial']}"
    losses = f"train {record['lowest_train']:.2f}, test {record['test_at_best_valid']:.2f}"
    return f"{name}: {losses}; {record['epochs']} epochs, {record['seconds']:.0f} s"


def table(done: dict[Key, dict[str, Any]]) -> str:
    """Markdown: lowest training loss of all trials and its median, and the test loss of the trial with the lowest."""
    lines = ["| network | depth | units | best train | median train | test |", "|---|---|---|---|---|---|"]
    for cell, depth in kinds():
        records = [record for key, record in done.items() if key[:2] == (cell, depth)]
        if records:
            lowest = [record["lowest_train"] for record in records]
            best = records[int(np.argmin(lowest))]
            lines.append(
                f"| {cell} | {depth} | {best['hidden_size']} | {min(lowest):.2f} | {np.median(lowest):.2f} "
                f"| {best['test_at_best_valid']:.2f} |"
            )
    return "\n".join(lines)


def constant_nats(pieces: list[Piece]) -> float:
    """Nats per frame if every key sounded with a probability of its own, always the same."""
    p = np.concatenate([piece[1:] for piece in pieces]).mean(axis=0)  # (KEYS,)
    p = p[(p > 0) & (p < 1)]
    return float(-(p * np.log(p) + (1 - p) * np.log(1 - p)).sum())


def draw(done: dict[Key, dict[str, Any]], constant: float) -> None:
    """The paper's figure: lowest training loss of every trial, by depth and network."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    colours = {"RHN": "#2563a8", "DT-RNN": "#c8501e", "DT(S)-RNN": "#0f766e"}
    with rc_context({"svg.hashsalt": "recurrent-highway-networks", "svg.fonttype": "path"}):
        figure = Figure(figsize=(7.5, 4.2), layout="constrained")
        axes = figure.subplots()
        for number, cell in enumerate(CELLS):
            for place, depth in enumerate(DEPTHS):
                lowest = [record["lowest_train"] for key, record in done.items() if key[:2] == (cell, depth)]
                values = np.minimum(lowest, HIGHEST_DRAWN)
                at = place + (number - 1) * 0.25
                axes.plot([at] * len(values), values, "o", color=colours[cell], markersize=4, alpha=0.5)
                if lowest:
                    axes.plot([at - 0.09, at + 0.09], [np.median(values)] * 2, color=colours[cell], linewidth=2)
            axes.plot([], [], "o-", color=colours[cell], label=cell)
        axes.axhline(constant, color="#7b8794", linewidth=1, linestyle="--", label="constant probabilities")
        axes.set_xticks(range(len(DEPTHS)), [str(depth) for depth in DEPTHS])
        axes.set(xlabel="recurrence depth", ylabel="lowest training loss, nats per frame")
        axes.set_title("JSB chorales: one point per random setting, bars are medians", fontsize=11)
        axes.grid(alpha=0.3)
        figure.legend(loc="outside lower center", ncols=4)
        figure.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the file JSB_Chorales.mat")
    parser.add_argument("--trials", type=int, default=12, help="random settings per network and depth")
    parser.add_argument("--epochs", type=int, default=60, help="at most, per trial")
    parser.add_argument("--processes", type=int, default=2, help="trials at the same time")
    parser.add_argument("--max-minutes", type=float, default=math.inf, help="start no trial after so long")
    arguments = parser.parse_args()
    started = time.monotonic()
    done = read_results()
    todo = missing(arguments.trials, done)
    with ProcessPoolExecutor(arguments.processes) as pool, RESULTS.open("a") as results:
        running = set()
        while True:
            while len(running) < arguments.processes and time.monotonic() - started < 60 * arguments.max_minutes:
                key = next(todo, None)
                if key is None:
                    break
                running.add(pool.submit(one_trial, key, arguments.data, arguments.epochs))
            if not running:
                break
            future = next(as_completed(running))
            running.remove(future)
            record = future.result()
            done[record["cell"], record["depth"], record["trial"]] = record
            results.write(json.dumps(record) + "\n")
            results.flush()
            print(line_of(record))
    print(table(done))
    if next(missing(arguments.trials, done), None) is None:
        draw(done, constant_nats(load(arguments.data)["train"]))
    else:
        print("not finished: start the same command again")


if __name__ == "__main__":
    main()
