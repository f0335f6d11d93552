"""Gates and states of a trained model while it reads a text.

No backend returns them, so the layer of the specification computes them again from the parameters, in NumPy.
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
        layer: number of the layer.
        start: number of the first time step of the window in the stream.
        weights: weights of the layer.
        outputs: (T, H) states after each time step.
        micro_steps: the micro-steps, [time step][micro-step], each with a batch of one.
    """

    layer: int
    start: int
    weights: LayerWeights
    outputs: NDArray[np.floating]
    micro_steps: list[list[MicroStep]]


def layer_traces(
    config: RHNConfig, parameters: Mapping[str, NDArray], tokens: NDArray[np.integer]
) -> Iterator[LayerTrace]:
    """A trace of every layer in every window, for the first n of `tokens` (n + 1,) at batch 1, without dropout."""
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
