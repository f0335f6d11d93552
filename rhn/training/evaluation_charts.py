"""Pictures of what the evaluation commands find, drawn by matplotlib as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rhn.training.score import UNITS, in_units

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rhn.training.evaluate.gates import GateAnalysis


def monte_carlo_chart(running_nats: Sequence[float], static_nats: float, level: str, title: str) -> bytes:
    """A PNG: score of the mean prediction against the number of samples in it, and that without dropout.

    Args:
        running_nats: after 1, 2, ... samples, in nats per token.
        static_nats: without dropout.
        level: "word", "char" or "byte".
        title: above the picture.
    """
    from matplotlib.figure import Figure  # without pyplot: no display and no global state

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    values = [in_units(nats, level) for nats in running_nats]
    axes.plot(range(1, len(values) + 1), values, marker="." if len(values) < 30 else "", label="mean of the samples")
    axes.axhline(in_units(static_nats, level), color="0.4", linestyle="dashed", label="no dropout")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(title=title, xlabel="samples", ylabel=UNITS[level])
    axes.grid(alpha=0.3)
    axes.legend()
    return _png(figure)


def gate_chart(analysis: GateAnalysis, title: str) -> bytes:
    """A PNG of three panels: gate activity and loss without the gate by micro-step, and a histogram of state norms."""
    from matplotlib.figure import Figure

    num_layers, depth = analysis.activity.shape
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    figure.suptitle(title)
    activity, lesions, norms = figure.subplots(1, 3)
    width = 0.8 / num_layers  # of a bar: the layers stand side by side
    for layer in range(num_layers):
        label = f"layer {layer}"
        places = np.arange(depth) + (layer - (num_layers - 1) / 2) * width
        activity.bar(places, analysis.activity[layer], width, yerr=analysis.activity_std[layer], label=label, capsize=2)
        bars = lesions.bar(places, analysis.lesion_nats[layer] - analysis.nats, width)
        lesions.bar_label(bars, fmt="%.2g", fontsize=8)  # one large bar makes the others hard to read
        norms.hist(analysis.state_norms[layer], bins=50, alpha=0.6, density=True)
    activity.set(title="transform gate: mean, and spread over units", xlabel="micro-step", ylim=(0, 1))
    lesions.set(title="increase of the loss with the gate shut", xlabel="micro-step", ylabel="nats per token")
    norms.set(title="norm of the state after a time step", xlabel="Euclidean norm", ylabel="density")
    for axes in (activity, lesions):
        axes.set_xticks(range(depth))
    for axes in (activity, lesions, norms):
        axes.grid(alpha=0.3)
    if num_layers > 1:
        activity.legend()
    return _png(figure)


def _png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
