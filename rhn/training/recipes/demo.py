"""The recipe `demo`: real text within two minutes on two CPU cores, without a download."""

from __future__ import annotations

from typing import Any

DEMO: dict[str, Any] = {
    "dataset": "pydoc",
    "hidden_size": 192,
    "recurrence_depth": 3,
    "tie_weights": False,
    "batch_size": 20,
    "bptt_length": 50,
    "transform_bias": -1.0,  # a more open gate learns faster at the start, and there are few epochs
    "learning_rate": 0.3,
    "epochs": 4,
    "max_grad_norm": 5.0,  # otherwise the first steps at so high a learning rate are unstable
    "decay_after": 3,  # the last epoch has half the learning rate
    "lr_decay": 2.0,
    "drop_embedding": 0.0,  # a few epochs do not overfit
    "drop_input": 0.0,
    "drop_state": 0.0,
    "drop_output": 0.0,
}
