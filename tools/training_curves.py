"""Draws docs/figures/training_curves.svg from the records of the models that were trained here.

python tools/training_curves.py
"""

from __future__ import annotations

import json
import math
from itertools import accumulate

import matplotlib
from figures import BACKGROUND, BLUE, FAINT, FOLDER, ORANGE, ROOT, SLATE, STYLE
from matplotlib.figure import Figure

TRAINED = ROOT / "benchmarks" / "results" / "trained"  # run folders without their checkpoints


def _bits(nats: float) -> float:
    return nats / math.log(2)


def training_curves() -> Figure:
    """Validation score after every epoch of the models of benchmarks/results/trained, beside models of others."""
    panels = {
        "ptb_cpu": ("Penn Treebank, 8.3 M parameters", "perplexity", math.exp, {"LSTM, 20 M": 82.7}),
        "shakespeare": ("Tiny Shakespeare, 1.9 M parameters", "nats per character", float, {"nanoGPT, 10.7 M": 1.47}),
        "ptb_char": ("Penn Treebank characters, 2.0 M", "bits per character", _bits, {"LSTM, 3 M": 1.36}),
    }
    figure = Figure(figsize=(14.0, 4.0), layout="constrained")
    figure.patch.set_facecolor(BACKGROUND)
    for axes, (name, (title, unit, of_nats, others)) in zip(
        figure.subplots(1, len(panels)), panels.items(), strict=True
    ):
        epochs = [json.loads(line) for line in (TRAINED / name / "metrics.jsonl").read_text().splitlines()]
        minutes = [epoch["seconds"] / 60 for epoch in epochs]
        for part, colour in (("valid", BLUE), ("test", ORANGE)):
            values = [of_nats(epoch[f"{part}_nats"]) for epoch in epochs]
            axes.plot(
                list(accumulate(minutes)), values, marker="o", markersize=4, linewidth=2, color=colour, label=part
            )
        for model, value in others.items():
            axes.axhline(value, color=SLATE, linestyle="--", linewidth=1.4)
            place = {"xy": (0.02, value), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
            axes.annotate(f"{model}: {value:g}", xytext=(0, -14), fontsize=11, color=SLATE, **place)
        axes.margins(y=0.1)
        axes.set_title(title, fontsize=14, weight="bold")
        axes.set(xlabel="minutes", ylabel=unit)
        axes.tick_params(labelsize=11.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=FAINT, linewidth=0.8)
        axes.legend(fontsize=11.5)
    return figure


if __name__ == "__main__":
    with matplotlib.rc_context(STYLE):
        training_curves().savefig(FOLDER / "training_curves.svg", metadata={"Date": None, "Creator": None})
