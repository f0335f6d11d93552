"""Does recurrence depth help at an equal number of parameters? The paper's question, at a size that a CPU can do.

    python benchmarks/depth_experiment.py [OPTION=VALUE ...] [--depths 1 2 3 5 8] [--seeds 1 2 3]

Trains one model per recurrence depth and seed on the Penn Treebank through the training command line, whose options may
follow (`data_path=FOLDER`, `epochs=5`, ...). All have as nearly a million parameters as their hidden size allows, and
the same budget of epochs; the score is the test perplexity at batch 1 of the epoch with the best validation score. The
runs are folders of runs/depth-experiment: started again, the program continues with the run that was stopped. Leaves
benchmarks/results/depth_experiment.json and docs/figures/depth_experiment.svg, and prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from training_step import describe_machine

import rhn
from rhn.training.command_line import run

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "depth_experiment.json"
FIGURES = ROOT / "tools" / "figures.py"

RUNS = Path("runs") / "depth-experiment"

PARAMETERS = 1_000_000
VOCAB_SIZE = 10_000  # of the Penn Treebank

# What differs from the defaults, which are the paper's: three epochs instead of hundreds.
BUDGET: dict[str, Any] = {
    "dataset": "ptb",
    "epochs": 3,
    "learning_rate": 0.35,
    "max_grad_norm": 5.0,  # with 0.5 and the default, two of three models of depth 1 diverged in the first epoch
    "decay_after": 1,
    "lr_decay": 2.0,
    "transform_bias": -1.0,  # a more open gate learns faster at the start
    "drop_embedding": 0.0,  # so few epochs do not overfit
    "drop_input": 0.0,
    "drop_state": 0.0,
    "drop_output": 0.0,
}

# Options that differ between the models, or between machines.
OWN_TO_A_RUN = ("hidden_size", "recurrence_depth", "seed", "run", "runs_path", "data_path")


def config_of_depth(depth: int) -> rhn.RHNConfig:
    """The tied model of this recurrence depth with the number of parameters nearest to `PARAMETERS`."""
    configs = (rhn.RHNConfig(VOCAB_SIZE, hidden_size, depth) for hidden_size in range(1, PARAMETERS // VOCAB_SIZE))
    return min(configs, key=lambda config: abs(rhn.parameter_count(config) - PARAMETERS))


def train(backend: str, config: rhn.RHNConfig, seed: int, further_options: list[str]) -> dict[str, Any]:
    """Train one model, unless its run has ended, and return its line of the results."""
    depth = config.recurrence_depth
    folder = RUNS / f"depth-{depth}-seed-{seed}"
    if not (folder / "summary.json").exists():
        model = {"vocab_size": config.vocab_size, "hidden_size": config.hidden_size, "recurrence_depth": depth}
        start = [*_words(BUDGET), *_words({**model, "seed": seed, "runs_path": RUNS, "run": folder.name})]
        run(backend, ["with", *([f"resume={folder}"] if folder.exists() else start), *further_options])
    summary = json.loads((folder / "summary.json").read_text())
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "recurrence_depth": depth,
        "seed": seed,
        "hidden_size": config.hidden_size,
        "parameters": summary["parameters"],
        "recurrent_parameters": config.num_gates * depth * config.hidden_size**2,
        "valid_perplexity": summary["valid"]["value"],
        "test_perplexity": summary["test"]["value"],
        "test_tokens": summary["test"]["tokens"],
        "best_epoch": summary["best_epoch"],
        "epochs": len(epochs),
    }


def _words(options: Mapping[str, Any]) -> list[str]:
    """Options as the command line has them."""
    return [f"{name}={value}" for name, value in options.items()]


def table(depths: list[int], rows: list[dict[str, Any]]) -> str:
    """The results in Markdown: mean over the seeds, and the lowest and the highest score."""
    lines = [
        "| recurrence depth | units | parameters | valid perplexity | test perplexity | lowest to highest |",
        "|---|---|---|---|---|---|",
    ]
    for depth in depths:
        of_depth = [row for row in rows if row["recurrence_depth"] == depth]
        valid, test = ([row[f"{part}_perplexity"] for row in of_depth] for part in ("valid", "test"))
        lines.append(
            f"| {depth} | {of_depth[0]['hidden_size']} | {of_depth[0]['parameters']:,} | {mean(valid):.1f}"
            f" | {mean(test):.1f} | {min(test):.1f} to {max(test):.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch", choices=sorted(rhn.installed_backends()))
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2, 3, 5, 8], help="recurrence depths")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of initial weights")
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE", help="further options of the training")
    arguments = parser.parse_args()

    rows = [
        train(arguments.backend, config_of_depth(depth), seed, arguments.options)
        for seed in arguments.seeds
        for depth in arguments.depths
    ]
    options = json.loads((RUNS / f"depth-{arguments.depths[0]}-seed-{arguments.seeds[0]}" / "options.json").read_text())
    record = {
        "backend": arguments.backend,
        "versions": rhn.load_backend(arguments.backend).describe(),
        "machine": describe_machine(),
        "options": {name: options[name] for name in options if name not in OWN_TO_A_RUN},
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    subprocess.run([sys.executable, FIGURES, "depth_experiment"], check=True)
    print(table(arguments.depths, rows))


if __name__ == "__main__":
    main()
