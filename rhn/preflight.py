"""The preflight check before training: runs a dozen small windows with the backend, dtype and device of the run.

The windows and the right answers are frozen (preflight.safetensors), so that neither the reference nor the conformance
suite is needed at run time. All windows go through one model and have the same shape, so a backend that compiles does
so only twice: once for training and once for evaluation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from itertools import product

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from rhn.backend import Model
from rhn.compare import LIMIT, TensorError, compare
from rhn.spec.config import RHNConfig
from rhn.spec.masks import VariationalMasks

VECTORS = resources.files("rhn") / "preflight.safetensors"

# Largest accepted error if the factors of products are rounded: about four times the worst error over all small models,
# measured with rounding in software. It is 1.8e-2 in bf16 (a state), and 6.1e-3 in tf32 with truncated factors, as
# tensor cores may do (4.0e-3 with rounding to nearest). tests/torch/test_tf32.py measures both.
ROUNDED_LIMIT = {"tf32": 2.3e-2, "bf16": 7.2e-2}

# The last words of a variant whose windows also have update masks, resets, and input and output masks per time step.
ALL_MASKS = "all masks"

Build = Callable[[RHNConfig, Mapping[str, NDArray]], Model]


@dataclass(frozen=True)
class Situation:
    """What is special about one window."""

    name: str
    drop_rate: float = 0.3  # of every kind of mask
    repeat_tokens: bool = False
    learning_rate: float = 0.2
    weight_decay: float = 0.0
    max_grad_norm: float = 100.0


# Training steps, one after the other on the same model; each starts from the state after the previous one.
TRAINING = (
    Situation("first step"),
    Situation("state handed over"),
    Situation("repeated tokens", repeat_tokens=True),
    Situation("weight decay", weight_decay=0.05),
    Situation("clipping", max_grad_norm=0.5),
    Situation("clipping with weight decay", weight_decay=0.5, max_grad_norm=0.5),
    Situation("little dropout", drop_rate=0.1),
    Situation("much dropout", drop_rate=0.8),
    Situation("small learning rate", learning_rate=1e-3),
    Situation("large learning rate", learning_rate=1.0),
)
# Then evaluation, without masks.
EVALUATION = (Situation("evaluation"), Situation("evaluation, state handed over", repeat_tokens=True))


class PreflightError(RuntimeError):
    """The model does not compute what the specification says."""


@dataclass(frozen=True)
class PreflightReport:
    """The result of a successful preflight.

    Attributes:
        num_cases: number of compared windows.
        worst: the error of the worst tensor.
        seconds: time that it took, compilation included.
    """

    num_cases: int
    worst: TensorError
    seconds: float

    def __str__(self) -> str:
        return f"preflight: {self.num_cases} cases, worst {self.worst.ulps:.2g} ULP, ok"


def preflight(
    build: Build,
    config: RHNConfig,
    dtype: str = "float32",
    precision: str = "float32",
    *,
    all_masks: bool = False,
) -> PreflightReport:
    """Compare a model with frozen vectors before it is trained, and print one line.

    Args:
        build: builds a model from a configuration and parameters, with the backend, dtype, device, precision and
            kernels of the run, and with the paper's optimiser.
        config: configuration of the run; the small model has the same gates, tying and sharing of masks.
        dtype: dtype of the run, "float32" or "float64".
        precision: precision of its matrix products, see `rhn.backend.Backend`. Precision and dtype determine the
            tolerance.
        all_masks: whether the run has masks that the paper does not use (SPEC.md 4.9 to 4.11). If so, the windows have
            all kinds of masks; if not, the paper's.

    Raises:
        PreflightError: a result is wrong, or an error was raised; the message names case, tensor and error.
    """
    started = time.monotonic()
    variant = variant_of(config, all_masks)
    vectors = _load(variant)
    limit = ROUNDED_LIMIT.get(precision, LIMIT[dtype])
    errors: list[TensorError] = []
    windows = answers(build(variant_config(variant), below(vectors, "parameters")), vectors)
    for number, situation in enumerate((*TRAINING, *EVALUATION)):
        try:
            errors += compare(next(windows), below(vectors, f"expected/{number}"), dtype, limit)
        except Exception as error:
            raise PreflightError(
                f"preflight: case {situation.name!r} ({variant}) fails with {type(error).__name__}: {error}"
            ) from error
        farthest = max(errors, key=lambda e: e.max_rel)
        if not farthest.within_tolerance:
            raise PreflightError(f"preflight: case {situation.name!r} ({variant}): {farthest}; training is refused")
    worst = max(errors, key=lambda e: e.ulps)
    report = PreflightReport(len(TRAINING) + len(EVALUATION), worst, time.monotonic() - started)
    print(report, flush=True)
    return report


def variants() -> list[str]:
    """Names of all small models for which there are vectors."""
    architectures = [*product(("coupled", "uncoupled"), ("tied", "untied"), ("shared masks", "separate masks"))]
    return [", ".join((*words, *more)) for more in ((), (ALL_MASKS,)) for words in architectures]


def variant_of(config: RHNConfig, all_masks: bool = False) -> str:
    """Name of the small model with the gates, the tying and the masks of a run."""
    return ", ".join(
        (
            "coupled" if config.couple_gates else "uncoupled",
            "tied" if config.tie_weights else "untied",
            "shared masks" if config.share_gate_masks else "separate masks",
            *((ALL_MASKS,) if all_masks else ()),
        )
    )


def has_all_masks(variant: str) -> bool:
    """Whether the windows of `variant` have all kinds of masks."""
    return variant.endswith(ALL_MASKS)


def variant_config(variant: str) -> RHNConfig:
    """Architecture of the small model called `variant`."""
    gates, tying, masks = variant.split(", ")[:3]
    return RHNConfig(
        vocab_size=11,
        hidden_size=6,
        recurrence_depth=2,
        embedding_size=None if tying == "tied" else 4,
        tie_weights=tying == "tied",
        couple_gates=gates == "coupled",
        share_gate_masks=masks == "shared masks",
    )


def answers(model: Model, vectors: Mapping[str, NDArray]) -> Iterator[dict[str, NDArray]]:
    """The answers of `model` in each situation; after the first and the last training step, weights are included."""
    tokens, targets = vectors["tokens"], vectors["targets"]  # (12, B, T)
    state = model.zero_state(tokens.shape[1])
    for number, situation in enumerate(TRAINING):
        loss, state = model.train_step(
            tokens[number],
            targets[number],
            state,
            masks_of(vectors, number),
            situation.learning_rate,
            situation.weight_decay,
            situation.max_grad_norm,
        )
        weights = model.parameters() if number in (0, len(TRAINING) - 1) else {}
        norm = model.to_numpy(model.last_grad_norm)
        yield {"loss": model.to_numpy(loss), "grad_norm": norm, "state": model.to_numpy(state[0]), **weights}
    for number in range(len(TRAINING), len(tokens)):
        nll, state = model.evaluate_step(tokens[number], targets[number], state)
        yield {"nll": model.to_numpy(nll), "state": model.to_numpy(state[0])}


def masks_of(vectors: Mapping[str, NDArray], number: int) -> VariationalMasks:
    """The masks of one training step."""
    masks = {kind: vectors[f"masks/{kind}"][number].astype(np.float64) for kind in below(vectors, "masks")}
    return VariationalMasks(
        **{kind: [mask] if kind in ("input", "state", "update") else mask for kind, mask in masks.items()}
    )


def below(tensors: Mapping[str, NDArray], folder: str) -> dict[str, NDArray]:
    """The tensors whose names start with `folder`/, which is removed from the names."""
    return {k.removeprefix(f"{folder}/"): v for k, v in tensors.items() if k.startswith(f"{folder}/")}


def _load(variant: str) -> dict[str, NDArray]:
    return below(safetensors.numpy.load(VECTORS.read_bytes()), variant)
