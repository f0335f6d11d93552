"""A trained model's layers, watched as they read a text: gates and states are no part of what a backend gives out.

They are computed again from the parameters, by the layer of the specification, in NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rhn.spec.config import RHNConfig
from rhn.spec.reference import LayerWeights, MicroStep, layer_forward, zero_state
from rhn.training.evaluate.stream import FULL_WINDOW
from rhn_datasets import windows


class LayerTrace(NamedTuple):
    """One layer over one window of T time steps.

    Attributes:
        layer: its number.
        start: number of the window's first time step in the stream.
        weights: of the layer.
        outputs: (T, H) states after each time step.
        micro_steps: the micro-steps taken, [time][level], each with a batch of one.
    """

    layer: int
    start: int
    weights: LayerWeights
    outputs: NDArray[np.floating]
    micro_steps: list[list[MicroStep]]


def layer_traces(
    config: RHNConfig, parameters: Mapping[str, NDArray], tokens: NDArray[np.integer]
) -> Iterator[LayerTrace]:
    """Every layer of every window as the model reads the first n of `tokens` (n + 1,) at batch 1, without dropout."""
    layers = [
        LayerWeights(*(parameters[f"layers.{i}.{name}"] for name in ("input_weight", "recurrent_weight", "bias")))
        for i in range(config.num_layers)
    ]
    state = zero_state(config, 1)
    start = 0
    for inputs, _ in windows(tokens, 1, FULL_WINDOW, drop_last=False):
        x = parameters["embedding"][inputs]  # (1, T, E)
        for i, weights in enumerate(layers):
            x, trace = layer_forward(weights, x, state[i], activation=config.activation)  # (1, T, H)
            state[i] = x[:, -1]
            yield LayerTrace(i, start, weights, x[0], trace)
        start += inputs.shape[1]
