"""What the gates of a trained model do, as section 6 of the paper shows it.

Gate values are no part of what a backend gives out: they are recomputed from its parameters with the layer of the
specification, in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rhn.backend import Model
from rhn.spec.config import RHNConfig
from rhn.spec.parameters import Parameters
from rhn.spec.reference import LayerWeights, layer_forward, zero_state
from rhn.training.checks import require_integer, require_one_of
from rhn.training.evaluate.stream import FULL_WINDOW, evaluate
from rhn_datasets import windows

# A bias that shuts a gate: sigmoid(-80) is 2e-35, nothing beside any state, and exp(80) fits into float32.
SHUT = -80.0


@dataclass(frozen=True)
class AnalysisOptions:
    """What is analysed; the names are those of the command line.

    Args:
        analyse_tokens: how many tokens from the start of the part, at least 1.
        part: of the data, "train", "valid" or "test".

    Raises:
        OptionError: an option has a value outside of what is accepted.
    """

    analyse_tokens: int
    part: str

    def __post_init__(self) -> None:
        require_integer("analyse_tokens", self.analyse_tokens, 1)
        require_one_of("part", self.part, ("train", "valid", "test"))


@dataclass(frozen=True)
class GateAnalysis:
    """What `analyse` finds on n tokens, with N layers of L micro-steps.

    Attributes:
        activity: (N, L) mean transform gate over time and units, in (0, 1).
        activity_std: (N, L) standard deviation over units of each unit's mean over time.
        state_norms: (N, n) Euclidean norm of the state after each time step.
        nats: loss per token of the model as it is.
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

    Args:
        model: its parameters are replaced while lesions are scored, and restored.
        tokens: the stream; its first n tokens are read.
        level: "word", "char" or "byte".
        progress: called with the number of tokens since the last call: n for the gates, for the model as it is, and
            for each lesion.
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
    """Parameters with which the transform gate of one micro-step is always 0.

    With coupled gates the state then passes that micro-step unchanged; otherwise the carry gate still works on it.
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
    layers = [
        LayerWeights(*(parameters[f"layers.{i}.{name}"] for name in ("input_weight", "recurrent_weight", "bias")))
        for i in range(config.num_layers)
    ]
    sums = np.zeros((config.num_layers, config.recurrence_depth, config.hidden_size))  # (N, L, H)
    norms: list[list[NDArray]] = [[] for _ in layers]
    state = zero_state(config, 1)
    for inputs, _ in windows(tokens, 1, FULL_WINDOW, drop_last=False):
        x = parameters["embedding"][inputs]  # (1, T, E)
        for i, weights in enumerate(layers):
            x, trace = layer_forward(weights, x, state[i], activation=config.activation)  # (1, T, H)
            state[i] = x[:, -1]
            for micro_steps in trace:
                sums[i] += np.concatenate([step.t for step in micro_steps])  # (L, H)
            norms[i].append(np.linalg.norm(x[0].astype(np.float64), axis=-1))  # (T,)
        progress(inputs.size)
    return sums / (len(tokens) - 1), np.array([np.concatenate(pieces) for pieces in norms])
