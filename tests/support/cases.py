"""Small models with everything that a test of a port needs: configuration, parameters, window, masks, state."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

import rhn
from rhn.backend import Model
from rhn.spec import reference

VOCAB_SIZE = 11


class Case(NamedTuple):
    """A model and one window for it; all arrays float64, so that any backend may round them as it likes."""

    config: rhn.RHNConfig
    parameters: dict[str, NDArray]
    tokens: NDArray[np.int64]  # (B, T)
    targets: NDArray[np.int64]  # (B, T)
    state: list[NDArray]  # per layer (B, H)
    masks: rhn.VariationalMasks


def make_case(
    *,
    recurrence_depth: int = 2,
    length: int = 3,
    batch_size: int = 3,
    masks: str = "shared",
    drop_update: float = 0.0,
    time_masks: bool = False,
    reset_probability: float = 0.0,
    seed: int = 1,
    **options: object,
) -> Case:
    """A case whose parameters are large enough that every gate, mask and level has an effect on every result.

    Args:
        recurrence_depth: L.
        length: T.
        batch_size: B.
        masks: "shared", "separate" or "none".
        drop_update, time_masks, reset_probability: see `rhn.sample_masks`.
        seed: of everything random.
        options: further fields of `rhn.RHNConfig`.
    """
    merged: dict = {"vocab_size": VOCAB_SIZE, "hidden_size": 6, "recurrence_depth": recurrence_depth, **options}
    config = rhn.RHNConfig(**merged, share_gate_masks=masks != "separate")
    generator = np.random.default_rng(seed)
    parameters = {
        # Scaled so that the state neither dies nor saturates over ten micro-steps.
        name: generator.standard_normal(shape) * (0.5 if name.endswith("bias") else 0.9 / np.sqrt(shape[-2]))
        for name, shape in rhn.parameter_shapes(config).items()
    }
    tokens = generator.integers(0, config.vocab_size, (batch_size, length))
    targets = generator.integers(0, config.vocab_size, (batch_size, length))
    state = [0.5 * generator.standard_normal((batch_size, config.hidden_size)) for _ in range(config.num_layers)]
    rates = rhn.DropRates() if masks == "none" else rhn.DropRates(0.25, 0.4, 0.3, 0.35)
    rates = rates._replace(drop_update=drop_update)
    drawn = rhn.sample_masks(
        config, tokens, rates, seed, step=0, time_masks=time_masks, reset_probability=reset_probability
    )
    return Case(config, parameters, tokens, targets, state, drawn)


# Every combination of the sizes at which a recurrence can go wrong (one or many micro-steps, time steps, rows), ...
SIZES = [
    {"recurrence_depth": depth, "length": length, "batch_size": batch_size, "masks": masks}
    for depth, length, batch_size, masks in itertools.product(
        (1, 2, 3, 10), (1, 2, 5), (1, 3), ("shared", "separate", "none")
    )
]
# ... and every option of the architecture, alone and in the combinations that interact.
ARCHITECTURES: list[dict[str, object]] = [
    {"embedding_size": 4, "tie_weights": False},
    {"embedding_size": 9, "tie_weights": False, "masks": "separate"},
    {"num_layers": 2},
    {"num_layers": 2, "masks": "separate"},
    {"num_layers": 2, "embedding_size": 4, "tie_weights": False, "couple_gates": False},
    {"couple_gates": False},
    {"couple_gates": False, "masks": "separate"},
    {"couple_gates": False, "masks": "none"},
    {"activation": "sigmoid"},
    {"activation": "relu"},
    {"activation": "relu", "couple_gates": False, "masks": "separate"},
    {"masks": "none", "drop_update": 0.4},
    {"embedding_size": 4, "drop_update": 0.4, "time_masks": True, "reset_probability": 0.5},
    {
        "embedding_size": 9,
        "num_layers": 2,
        "couple_gates": False,
        "masks": "separate",
        "drop_update": 0.4,
        "time_masks": True,
        "reset_probability": 0.5,
    },
]
GRID = SIZES + ARCHITECTURES


def name_of(options: Mapping[str, object]) -> str:
    """A test id: `pytest.mark.parametrize("options", GRID, ids=name_of)`."""
    return "-".join(f"{key}={value}" for key, value in options.items())


def relative_error(actual: ArrayLike, expected: ArrayLike) -> float:
    """Largest difference, relative to the largest entry of `expected` (at least 1e-30); infinite for another shape."""
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        return np.inf
    return float(np.max(np.abs(actual - expected)) / max(np.max(np.abs(expected)), 1e-30))


# One training step of every case: the rate is large, so that an error in the update shows; the norm is clipped.
LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM = 0.5, 0.01, 0.7


def errors_against_reference(model: Model, case: Case) -> dict[str, float]:
    """Relative error of everything that `model` computes for `case`, by name: logits, states, loss, every gradient,
    summed negative log-likelihood, and norm and parameters after each of two training steps. The model is trained."""
    config, parameters, tokens, targets, state, masks = case
    errors: dict[str, float] = {}

    def compare(name: str, actual: ArrayLike, expected: ArrayLike) -> None:
        errors[name] = relative_error(actual, expected)

    expected_logits, expected_state = reference.forward(config, parameters, tokens, state, masks)
    logits, new_state = model.forward(tokens, state, masks)
    compare("logits", logits, expected_logits)
    compare("state", new_state, expected_state)

    nll, new_state = model.evaluate_step(tokens, targets, state, masks)
    compare("negative log-likelihood", model.to_numpy(nll), reference.cross_entropy(expected_logits, targets).sum())
    compare("evaluation state", [model.to_numpy(s) for s in new_state], expected_state)

    expected_loss, expected_gradients, _ = reference.gradients(
        config, parameters, tokens, targets, state, masks, WEIGHT_DECAY
    )
    loss, gradients, new_state = model.gradients(tokens, targets, state, masks, WEIGHT_DECAY)
    compare("loss", loss, expected_loss)
    compare("gradients' state", new_state, expected_state)
    errors.update({f"gradient of {n}": np.inf for n in expected_gradients.keys() ^ gradients.keys()})
    for name in expected_gradients.keys() & gradients.keys():
        compare(f"gradient of {name}", gradients[name], expected_gradients[name])

    expected, carried, model_state = parameters, state, state
    for step in (1, 2):
        expected_loss, expected_gradients, expected_carried = reference.gradients(
            config, expected, tokens, targets, carried, masks, WEIGHT_DECAY
        )
        expected = reference.sgd_update(expected, expected_gradients, LEARNING_RATE, MAX_GRAD_NORM)
        carried = expected_carried
        loss, model_state = model.train_step(
            tokens, targets, model_state, masks, LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM
        )
        compare(f"loss of step {step}", model.to_numpy(loss), expected_loss)
        compare(f"state of step {step}", [model.to_numpy(s) for s in model_state], expected_carried)
        compare(f"norm of step {step}", model.to_numpy(model.last_grad_norm), reference.global_norm(expected_gradients))
        actual = model.parameters()
        for name, value in expected.items():
            compare(f"{name} after step {step}", actual[name], value)
    return errors


GENERATED = [4, 2, 4, 2, 2, 2, 3, 3, 1, 2]  # by the reference, from the prompt 1, 2 with seed 4 and top_k 5


def generating_case() -> tuple[rhn.RHNConfig, dict[str, NDArray]]:
    """An architecture and parameters with which `generate` must give `GENERATED`."""
    config = rhn.RHNConfig(11, 6, 2, num_layers=2)
    return config, rhn.initial_parameters(config, seed=3, init_scale=0.9)
