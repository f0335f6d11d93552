"""Recipes beyond the paper: settings published by others, written as options of this project, and recipes for a CPU.

The others' programs average the loss over time, whereas this project sums it (SPEC.md 5.1). So their learning rates are
divided by the window length, and their clip norm and weight decay are multiplied by it.
Their published scores are rows of `rhn.training.recipes.published_scores`.
"""

from __future__ import annotations

from typing import Any

# Liu et al. 2021 (ICML, arXiv 2101.09048), from the repository Selfish-RNN: clip 0.25, lr 15, wdecay 1.2e-6, bptt 35.
# The rate is constant; once validation is worse than five checks ago, the weights are averaged.
NTASGD: dict[str, Any] = {
    "schedule": "constant",
    "learning_rate": 15 / 35,
    "average_after": 5,
    "max_grad_norm": 0.25 * 35,
    "weight_decay": 1.2e-6 * 35,
    "init_scale": 0.0347,  # 1/sqrt(830), the default of nn.Linear
    "embedding_init_scale": 0.1,
    "transform_bias": 0.0,  # their gates are not closed at the start
    "drop_embedding": 0.2,
    "drop_input": 0.65,
    "drop_output": 0.65,
}

# Melis et al. 2018 (ICLR, arXiv 1707.05589). The learning rates and drop rates of their RHNs were chosen by a tuner and
# never published. Those below lie within the ranges of their LSTMs and are a starting point for a search.
MELIS: dict[str, Any] = {
    "recurrence_depth": 5,
    "batch_size": 64,
    "optimizer": "adam",
    "beta1": 0.0,
    "epsilon": 1e-9,
    "learning_rate": 0.003,
    "schedule": "plateau",
    "lr_decay": 10.0,
    "evaluate_steps": 100,
    "plateau_patience": 30,
    "patience": 60,
    "weight_decay": 1e-4,
    "initializer": "fan_in",
    "transform_bias": -1.0,
    "time_masks": True,
    "reset_probability": 0.01,
    "drop_embedding": 0.0,
}
MELIS_24M: dict[str, Any] = {
    **MELIS,
    "dataset": "ptb",
    "hidden_size": 1057,
    "epochs": 242,  # their 1000 times 100 steps
    "drop_input": 0.65,
    "drop_state": 0.35,
    "drop_output": 0.7,
}

# Our own, for trainings of a few epochs; short trials led to them.
SHORT: dict[str, Any] = {
    "recurrence_depth": 5,
    "optimizer": "adam",
    "learning_rate": 0.002,
    "schedule": "cosine",
    "initializer": "fan_in",
    "transform_bias": -1.0,
}

TUNED: dict[str, dict[str, Any]] = {
    "ptb_ntasgd": {"dataset": "ptb", "recurrence_depth": 10, "hidden_size": 830, **NTASGD},
    # The same with the windows and the regularisation of Merity et al. 2018; nobody has published it for an RHN.
    "ptb_awd": {
        "dataset": "ptb",
        "recurrence_depth": 10,
        "hidden_size": 830,
        **NTASGD,
        "bptt_jitter": 5.0,
        "activation_regularization": 2.0,
        "temporal_activation_regularization": 1.0,
    },
    "ptb_melis_10m": {
        **MELIS_24M,
        "hidden_size": 586,
        "drop_input": 0.6,
        "drop_state": 0.2,
        "drop_output": 0.4,
    },
    "ptb_melis_24m": MELIS_24M,
    # Recurrent (update) dropout instead of the state's masks.
    "ptb_melis_24m_update": {**MELIS_24M, "drop_state": 0.0, "drop_update": 0.35},
    "wikitext2_melis_24m": {
        **MELIS,
        "dataset": "wikitext2",
        "hidden_size": 1203,
        "embedding_size": 256,  # with so many words, a wide embedding would leave few parameters to the recurrence
        "learning_rate": 0.0025,
        "evaluate_steps": 200,
        "epochs": 214,  # their 1000 times 200 steps
        "weight_decay": 4e-5,
        "drop_input": 0.5,
        "drop_state": 0.35,
        "drop_output": 0.5,
    },
    "enwik8_melis_27m": {
        **MELIS,
        "dataset": "enwik8",
        "hidden_size": 1600,
        "embedding_size": 205,
        "tie_weights": False,
        "batch_size": 128,
        "bptt_length": 50,
        "beta2": 0.99,
        "epsilon": 1e-5,
        "learning_rate": 0.002,
        # They validate every 400 steps and wait for 30 validations. Scoring ten million bytes so often takes too long.
        "evaluate_steps": 3000,
        "plateau_patience": 4,
        "patience": 8,
        "epochs": 28,
        "weight_decay": 7.5e-6,
        "drop_input": 0.2,
        "drop_state": 0.08,
        "drop_output": 0.07,
    },
    # An hour and a half on one CPU core that multiplies in bf16 (precision=bf16).
    "ptb_cpu": {
        **SHORT,
        "dataset": "ptb",
        "hidden_size": 512,
        "batch_size": 32,
        "beta1": 0.0,
        "epochs": 17,
        "weight_decay": 1e-5,
        "drop_embedding": 0.1,
        "drop_input": 0.3,
        "drop_state": 0.15,
        "drop_output": 0.4,
    },
    # The Penn Treebank by characters. A hundred minutes likewise.
    "ptb_char": {
        **SHORT,
        "dataset": "ptb_char",
        "hidden_size": 440,
        "embedding_size": 50,
        "embedding_init_scale": 1.0,  # a small embedding of small numbers would hardly move the state
        "tie_weights": False,
        "batch_size": 32,
        "bptt_length": 64,
        "learning_rate": 0.001,
        "epochs": 8,
        "drop_embedding": 0.0,
        "drop_input": 0.0,
        "drop_state": 0.0,
        "drop_output": 0.0,
    },
    # Tiny Shakespeare, or any text of a few megabytes: with data_path=FILE. An hour likewise.
    "shakespeare": {
        **SHORT,
        "dataset": "text",
        "level": "char",
        "hidden_size": 416,
        "embedding_size": 128,
        "embedding_init_scale": 1.0,
        "tie_weights": False,
        "batch_size": 32,
        "beta1": 0.0,
        "bptt_length": 64,
        "learning_rate": 0.001,
        "epochs": 18,
        "weight_decay": 0.0,
        "drop_embedding": 0.0,
        "drop_input": 0.1,
        "drop_state": 0.15,
        "drop_output": 0.2,
    },
}
