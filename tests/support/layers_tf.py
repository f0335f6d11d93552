"""Data for a small layer of the TensorFlow port, and a small language model's configuration."""

from __future__ import annotations

import numpy as np

import rhn

X = np.random.default_rng(1).standard_normal((4, 6, 3)).astype(np.float32)  # (B, T, E)

STATE = np.random.default_rng(2).standard_normal((4, 5)).astype(np.float32)  # (B, H)

# Holes, padding at either end, a row without a valid step, one without padding.
MASK = np.array([[1, 1, 0, 1, 0, 0], [0, 0, 1, 1, 1, 1], [0] * 6, [1] * 6], bool)  # (B, T)

TOLERANCE = 1e-6  # float32

CONFIG = rhn.RHNConfig(vocab_size=7, hidden_size=4, recurrence_depth=2, num_layers=2)
