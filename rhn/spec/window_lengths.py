"""Window lengths of truncated backpropagation through time that change from step to step (Merity et al. 2018)."""

from __future__ import annotations

import math

from rhn.spec.random import Purpose, normal, uniform

HALVED = 0.05  # probability that the length is drawn around half of `bptt_length`
LEAST = 5


def longest_window(bptt_length: int, bptt_jitter: float) -> int:
    """The greatest possible window length: two standard deviations above `bptt_length`, rounded up."""
    return bptt_length + math.ceil(2.0 * bptt_jitter)


def window_length(seed: int, step: int, bptt_length: int, bptt_jitter: float) -> int:
    """Number of time steps of the window of one training step: a pure function of the arguments (SPEC.md 4.12)."""
    is_halved = float(uniform(seed, Purpose.WINDOW_LENGTH, (), step=step)) < HALVED
    deviation = float(normal(seed, Purpose.WINDOW_LENGTH, (), step=step, index=1)) * bptt_jitter
    drawn = max(LEAST, int((bptt_length / 2 if is_halved else bptt_length) + deviation))
    return min(drawn, longest_window(bptt_length, bptt_jitter))
