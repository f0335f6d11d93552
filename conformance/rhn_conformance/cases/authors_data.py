"""The numbers that the authors' own programs computed, with the names and layouts of `rhn.spec`.

Origin, licence and meaning: vectors/authors/README.md. Six language models (TensorFlow, Theano) and three bare layers
(Brainstorm), each in both precisions. Arrays and numbers are the authors' own, bit for bit.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from rhn.spec import reference
from rhn.spec.config import RHNConfig
from rhn.spec.masks import VariationalMasks
from rhn.spec.parameters import Parameters
from rhn.spec.reference import LayerWeights

_VECTORS = resources.files("rhn_conformance") / "vectors" / "authors"
_MANIFEST = json.loads((_VECTORS / "manifest.json").read_text())
_DTYPES = ("float32", "float64")

CASES = tuple(f"{name}_{dtype}" for name in _MANIFEST["language_models"] for dtype in _DTYPES)
"""Names that `load_case` accepts, such as "tf_tiny_float32"."""

LAYER_CASES = tuple(f"{name}_{dtype}" for name in _MANIFEST["layers"] for dtype in _DTYPES)
"""Names that `load_layer_case` accepts, such as "brainstorm_depth3_float64"."""


@dataclass(frozen=True)
class SecondStep:
    """A second training step on the same window and masks, from the state and the parameters after the first."""

    loss_with_weight_decay: float
    final_state: list[NDArray]
    new_parameters: Parameters


@dataclass(frozen=True)
class EmbeddingSlices:
    """TensorFlow's gradient of the embedding before repeated rows are added up.

    Attributes:
        rows: (N,) row of the embedding that each piece belongs to: all V for weight decay, all V for the softmax if it
            is tied, then one per token of the window, batch row by batch row.
        values: (N, E) the pieces.
    """

    rows: NDArray[np.integer]
    values: NDArray


@dataclass(frozen=True)
class Evaluation:
    """Theano's `evaluate` of the same window: no masks, same initial state and parameters."""

    loss: float
    loss_with_weight_decay: float


@dataclass(frozen=True)
class AuthorsCase:
    """One training window of an authors' program: inputs and results. Shapes as in `rhn.spec`.

    Attributes:
        name: one of `CASES`.
        dtype: "float32" or "float64", of the program's arithmetic and of all arrays here.
        config: the architecture.
        parameters: before the step; the same numbers in both precisions.
        tokens: (B, T) int32.
        targets: (B, T) int32.
        state: before the window, per layer (B, H); not zero.
        masks: all four are there.
        learning_rate: of SGD.
        weight_decay: 0.5 * weight_decay * sum of squares of all parameters is in the differentiated loss.
        max_grad_norm: half of `clip_norm`, so that the gradients are halved.
        logits: (B, T, V), with masks, as everything below.
        losses: (B, T) negative log-likelihoods in nats.
        loss: summed over time, averaged over the batch, without weight decay. TensorFlow divides it by 1 + 1e-12.
        loss_with_weight_decay: the loss that is differentiated.
        final_state: after the window, per layer (B, H).
        gradients: of `loss_with_weight_decay`, not clipped.
        gradients_without_weight_decay: of `loss`, not clipped.
        grad_norm: true global norm of `gradients`.
        clip_norm: the norm that the program clips with. Theano: the true norm. TensorFlow 0.12: the norm of the pieces
            in `embedding_slices` and of the other gradients.
        grad_norm_without_weight_decay: true global norm of `gradients_without_weight_decay`.
        clip_norm_without_weight_decay: as `clip_norm`, of `loss`.
        new_parameters: after one step of clipped SGD.
        second_step: what came after it.
        embedding_slices: TensorFlow only.
        evaluation: Theano only.
    """

    name: str
    dtype: str
    config: RHNConfig
    parameters: Parameters
    tokens: NDArray[np.integer]
    targets: NDArray[np.integer]
    state: list[NDArray]
    masks: VariationalMasks
    learning_rate: float
    weight_decay: float
    max_grad_norm: float
    logits: NDArray
    losses: NDArray
    loss: float
    loss_with_weight_decay: float
    final_state: list[NDArray]
    gradients: Parameters
    gradients_without_weight_decay: Parameters
    grad_norm: float
    clip_norm: float
    grad_norm_without_weight_decay: float
    clip_norm_without_weight_decay: float
    new_parameters: Parameters
    second_step: SecondStep
    embedding_slices: EmbeddingSlices | None
    evaluation: Evaluation | None

    def equivalent_max_grad_norms(self) -> tuple[float, float]:
        """`max_grad_norm` of the first and of the second step with which a program that clips with the true norm (as
        SPEC.md 5.3 asks) takes the very steps of the authors' program."""
        if self.embedding_slices is None:
            return self.max_grad_norm, self.max_grad_norm
        limits = []
        for parameters, state in ((self.parameters, self.state), (self.new_parameters, self.final_state)):
            window = (self.tokens, self.targets, state, self.masks, self.weight_decay)
            _, gradients, _ = reference.gradients(self.config, parameters, *window)
            clip_norm = tensorflow_clip_norm(self.config, parameters, *window)
            limits.append(self.max_grad_norm * reference.global_norm(gradients) / clip_norm)
        return limits[0], limits[1]


@dataclass(frozen=True)
class LayerCase:
    """One window through Brainstorm's bare layer, no masks. loss = sum(outputs * d_outputs).

    Attributes:
        name: one of `LAYER_CASES`.
        dtype: "float32" or "float64", of the program's arithmetic and of all arrays here.
        activation: of the candidate h.
        parameters: input (2, E, H), recurrent (L, 2, H, H), bias (L, 2, H).
        inputs: (B, T, E).
        state: (B, H) before the window.
        outputs: (B, T, H).
        h: (L, B, T, H) candidate of every micro-step.
        t: (L, B, T, H) transform gate of every micro-step.
        s: (L, B, T, H) state after every micro-step.
        d_outputs: (B, T, H) derivative of the loss with respect to the outputs, directly.
        total_d_outputs: (B, T, H) the same including what reaches the loss through later time steps.
        loss: the scalar.
        gradients: with respect to `parameters`.
        d_inputs: (B, T, E) derivative with respect to `inputs`.
    """

    name: str
    dtype: str
    activation: str
    parameters: LayerWeights
    inputs: NDArray
    state: NDArray
    outputs: NDArray
    h: NDArray
    t: NDArray
    s: NDArray
    d_outputs: NDArray
    total_d_outputs: NDArray
    loss: float
    gradients: LayerWeights
    d_inputs: NDArray


def load_case(name: str) -> AuthorsCase:
    """The language-model case called `name`, one of `CASES`; ValueError if it is none of them."""
    case, dtype = _split(name, CASES)
    entry = _MANIFEST["language_models"][case]
    config = RHNConfig(**entry["config"])
    arrays = _Arrays(case, dtype)
    numbers = entry["numbers"][dtype]

    slices = evaluation = None
    if "evaluation/loss" in numbers:
        evaluation = Evaluation(numbers["evaluation/loss"], numbers["evaluation/loss_with_weight_decay"])
    if "embedding_slices/rows" in arrays:
        slices = EmbeddingSlices(arrays["embedding_slices/rows"], arrays["embedding_slices/values"])
    return AuthorsCase(
        name=name,
        dtype=dtype,
        config=config,
        parameters=arrays.below("parameters"),
        tokens=arrays["tokens"],
        targets=arrays["targets"],
        state=arrays.per_layer("state"),
        masks=VariationalMasks(
            embedding=arrays["masks/embedding"],
            input=arrays.per_layer("masks/input"),
            state=arrays.per_layer("masks/state"),
            output=arrays["masks/output"],
        ),
        logits=arrays["logits"],
        losses=arrays["losses"],
        final_state=arrays.per_layer("final_state"),
        gradients=arrays.below("gradients"),
        gradients_without_weight_decay=arrays.below("gradients_without_weight_decay"),
        new_parameters=arrays.below("new_parameters"),
        second_step=SecondStep(
            loss_with_weight_decay=numbers["second_step/loss_with_weight_decay"],
            final_state=arrays.per_layer("second_step/final_state"),
            new_parameters=arrays.below("second_step/new_parameters"),
        ),
        embedding_slices=slices,
        evaluation=evaluation,
        **{key: value for key, value in numbers.items() if "/" not in key},
    )


def load_layer_case(name: str) -> LayerCase:
    """The bare-layer case called `name`, one of `LAYER_CASES`; ValueError if it is none of them."""
    case, dtype = _split(name, LAYER_CASES)
    entry = _MANIFEST["layers"][case]
    arrays = _Arrays(case, dtype)
    weights, gradients = arrays.below("parameters"), arrays.below("gradients")
    return LayerCase(
        name=name,
        dtype=dtype,
        activation=entry["config"]["activation"],
        parameters=LayerWeights(weights["input_weight"], weights["recurrent_weight"], weights["bias"]),
        gradients=LayerWeights(gradients["input_weight"], gradients["recurrent_weight"], gradients["bias"]),
        loss=entry["numbers"][dtype]["loss"],
        **{key: arrays[key] for key in ("inputs", "state", "outputs", "d_outputs", "total_d_outputs", "d_inputs")},
        **arrays.below("micro_steps"),
    )


def tensorflow_clip_norm(
    config: RHNConfig,
    parameters: Parameters,
    tokens: NDArray[np.integer],
    targets: NDArray[np.integer],
    state: list[NDArray],
    masks: VariationalMasks,
    weight_decay: float,
) -> float:
    """The norm that TensorFlow 0.12 clips with: the pieces of the embedding's gradient (weight decay, tied softmax,
    each token of the window) are squared before they are added up.

    The reference computes it for a model in which every token of the window has its own embedding row, behind the
    vocabulary, and the softmax its own weight. Logits of the added rows are so low that their probability is exactly 0.
    """
    vocab_size = config.vocab_size
    own_row = vocab_size + np.arange(tokens.size).reshape(tokens.shape)  # (B, T)
    embedding = parameters["embedding"]  # (V, E)
    softmax_weight = embedding.T if config.tie_weights else parameters["softmax.weight"]  # (H, V)
    apart = dict(parameters)
    apart["embedding"] = np.concatenate([embedding, embedding[tokens.ravel()]])  # (V + BT, E)
    apart["softmax.weight"] = np.pad(softmax_weight, ((0, 0), (0, tokens.size)))  # (H, V + BT)
    apart["softmax.bias"] = np.pad(parameters["softmax.bias"], (0, tokens.size), constant_values=-1e4)  # (V + BT,)
    apart_config = dataclasses.replace(config, vocab_size=vocab_size + tokens.size, tie_weights=False)
    _, gradients, _ = reference.gradients(apart_config, apart, own_row, targets, state, masks)

    pieces: dict[str, Any] = {"lookup": gradients["embedding"][vocab_size:]}  # (BT, E)
    pieces["embedding's weight decay"] = weight_decay * embedding  # (V, E)
    gradients["softmax.weight"] = gradients["softmax.weight"][:, :vocab_size]  # (H, V)
    gradients["softmax.bias"] = gradients["softmax.bias"][:vocab_size]  # (V,)
    if config.tie_weights:
        pieces["tied softmax"] = gradients["softmax.weight"]
    for key, value in parameters.items():
        if key != "embedding":
            pieces[key] = gradients[key] + weight_decay * value
    return reference.global_norm(pieces)


class _Arrays:
    """The arrays of one case in one precision; arrays that both precisions share are stored once, as float32."""

    def __init__(self, case: str, dtype: str) -> None:
        stored = safetensors.numpy.load((_VECTORS / f"{case}.safetensors").read_bytes())
        self._arrays: dict[str, NDArray] = {}
        for key, array in stored.items():
            precision, _, rest = key.partition("/")
            if precision == dtype:
                self._arrays[rest] = array
            elif precision not in _DTYPES:
                self._arrays[key] = array if np.issubdtype(array.dtype, np.integer) else array.astype(dtype)

    def __getitem__(self, key: str) -> NDArray:
        return self._arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def below(self, folder: str) -> Parameters:
        prefix = folder + "/"
        return {key.removeprefix(prefix): array for key, array in self._arrays.items() if key.startswith(prefix)}

    def per_layer(self, folder: str) -> list[NDArray]:
        arrays = self.below(folder)
        return [arrays[str(layer)] for layer in range(len(arrays))]


def _split(name: str, accepted: tuple[str, ...]) -> tuple[str, str]:
    """Case and precision of a name."""
    if name not in accepted:
        raise ValueError(f"case {name!r} is not known: accepted are {', '.join(accepted)}")
    case, _, dtype = name.rpartition("_")
    return case, dtype
