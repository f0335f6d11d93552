"""The gates of a trained model, analysed as in section 6 of the paper: the first half of `analyse`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rhn.backend import Model
from rhn.spec.config import RHNConfig
from rhn.spec.parameters import Parameters
from rhn.training.evaluate.analyse.traces import layer_traces
from rhn.training.evaluate.result import png_of
from rhn.training.evaluate.stream import evaluate
from rhn.training.score import UNITS, in_units
from rhn.training.terminal.console import say

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)  # of the state norms

# A bias that shuts a gate: sigmoid(-80) is 2e-35, negligible for any state, and exp(80) fits into float32.
SHUT = -80.0


@dataclass(frozen=True)
class GateAnalysis:
    """The result of `analyse` on n tokens, for N layers of L micro-steps.

    Attributes:
        activity: (N, L) mean transform gate over time and units, in (0, 1).
        activity_std: (N, L) standard deviation over units of each unit's mean over time.
        state_norms: (N, n) Euclidean norm of the state after each time step.
        nats: loss per token of the unchanged model.
        lesion_nats: (N, L) loss per token with the transform gate of this micro-step shut.
    """

    activity: NDArray[np.float64]
    activity_std: NDArray[np.float64]
    state_norms: NDArray[np.float64]
    nats: float
    lesion_nats: NDArray[np.float64]


def analyse(
    model: Model, tokens: NDArray[np.integer], level: str, progress: Callable[[int], Any] = lambda tokens: None
) -> GateAnalysis:
    """Measure gates, state norms and lesions over `tokens` (n + 1,) at batch 1, without dropout.

    A lesion is the model with the transform gate of one micro-step shut.

    Args:
        model: its parameters are replaced while lesions are scored, and then restored.
        tokens: the stream; its first n tokens are read.
        level: "word", "char" or "byte".
        progress: called with the number of tokens since the last call: n for the gates, n for the unchanged model, and
            n for each lesion.
    """
    config, parameters = model.config, model.parameters()
    unit_means, norms = _gates(config, parameters, tokens, progress)
    nats = evaluate(model, tokens, level, progress=progress).nats
    lesion_nats = np.empty((config.num_layers, config.recurrence_depth))  # (N, L)
    try:
        for layer, micro_step in np.ndindex(lesion_nats.shape):
            model.load_parameters(without_gate(config, parameters, layer, micro_step))
            lesion_nats[layer, micro_step] = evaluate(model, tokens, level, progress=progress).nats
    finally:
        model.load_parameters(parameters)
    return GateAnalysis(unit_means.mean(axis=-1), unit_means.std(axis=-1), norms, nats, lesion_nats)


def without_gate(config: RHNConfig, parameters: Mapping[str, NDArray], layer: int, micro_step: int) -> Parameters:
    """Changed parameters, with which the transform gate of one micro-step is always 0.

    With coupled gates, this micro-step then leaves the state unchanged; otherwise the carry gate still acts on it.
    """
    changed = dict(parameters)
    t = config.gates.index("t")

    def copy_of(name: str) -> NDArray:
        changed[f"layers.{layer}.{name}"] = changed[f"layers.{layer}.{name}"].copy()
        return changed[f"layers.{layer}.{name}"]

    copy_of("recurrent_weight")[micro_step, t] = 0.0
    copy_of("bias")[micro_step, t] = SHUT
    if micro_step == 0:
        copy_of("input_weight")[t] = 0.0
    return changed


def _gates(
    config: RHNConfig,
    parameters: Mapping[str, NDArray],
    tokens: NDArray[np.integer],
    progress: Callable[[int], Any],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over time of every transform gate (N, L, H), and the norm of the state after every time step (N, n)."""
    sums = np.zeros((config.num_layers, config.recurrence_depth, config.hidden_size))  # (N, L, H)
    norms: list[list[NDArray]] = [[] for _ in range(config.num_layers)]
    for trace in layer_traces(config, parameters, tokens):
        for micro_steps in trace.micro_steps:
            sums[trace.layer] += np.concatenate([step.t for step in micro_steps])  # (L, H)
        norms[trace.layer].append(np.linalg.norm(trace.outputs.astype(np.float64), axis=-1))  # (T,)
        if trace.layer == config.num_layers - 1:
            progress(len(trace.outputs))
    return sums / (len(tokens) - 1), np.array([np.concatenate(pieces) for pieces in norms])


def print_gates(analysis: GateAnalysis, percentiles: NDArray, level: str, stream: str) -> None:
    """Print the result: `percentiles` (N, PERCENTILES) are those of the state norms, `stream` is the text's name."""
    say(f"{stream}: {UNITS[level]} {in_units(analysis.nats, level):.4g}")
    say(f"layer  micro-step  mean transform gate (± over units)  {UNITS[level]} with it shut")
    for layer, micro_step in np.ndindex(analysis.activity.shape):
        mean, spread = analysis.activity[layer, micro_step], analysis.activity_std[layer, micro_step]
        shut = in_units(float(analysis.lesion_nats[layer, micro_step]), level)
        say(f"{layer:5}  {micro_step:10}  {mean:19.4f} ± {spread:<12.4f}  {shut:.4g}")
    for layer, row in enumerate(percentiles):
        values = ", ".join(f"{percent}% {norm:.3g}" for percent, norm in zip(PERCENTILES, row, strict=True))
        say(f"layer {layer}, norm of the state after a time step, percentiles: {values}")


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
    return png_of(figure)
