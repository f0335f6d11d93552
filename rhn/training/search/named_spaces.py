"""Named search spaces: a recipe, and the distributions to search around it."""

from __future__ import annotations

# The tuned LSTMs of Melis et al. 2018 lie in these ranges; the values for their RHNs were never published. Hidden and
# embedding size change together, so that the number of parameters stays the same.
_MELIS = {
    "learning_rate": "log(1e-3, 5e-3)",
    "weight_decay": "log(1e-5, 5e-4)",
    "drop_input": "uniform(0.4, 0.75)",
    "drop_state": "uniform(0.1, 0.5)",
    "drop_output": "uniform(0.3, 0.75)",
}

SPACES: dict[str, tuple[str, dict[str, str]]] = {
    "ptb_melis_10m_space": (
        "ptb_melis_10m",
        {**_MELIS, "hidden_size,embedding_size": "choice((586, 586), (739, 370), (805, 282), (853, 213))"},
    ),
    "ptb_melis_24m_space": (
        "ptb_melis_24m",
        {**_MELIS, "hidden_size,embedding_size": "choice((1057, 1057), (1242, 621), (1323, 463), (1381, 345))"},
    ),
    "ptb_cpu_space": (
        "ptb_cpu",
        {
            "learning_rate": "log(5e-4, 3e-3)",
            "drop_embedding": "uniform(0.0, 0.3)",
            "drop_input": "uniform(0.2, 0.6)",
            "drop_state": "uniform(0.05, 0.4)",
            "drop_output": "uniform(0.2, 0.6)",
        },
    ),
    "shakespeare_space": (
        "shakespeare",
        {
            "learning_rate": "log(5e-4, 3e-3)",
            "transform_bias": "uniform(-3.0, 0.0)",
            "drop_input": "uniform(0.0, 0.4)",
            "drop_state": "uniform(0.0, 0.4)",
            "drop_output": "uniform(0.1, 0.5)",
        },
    ),
}
