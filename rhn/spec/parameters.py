"""Names, shapes, number and initial values of the parameters of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rhn.spec.arguments import check_choice, check_number, is_number, refusal
from rhn.spec.config import RHNConfig
from rhn.spec.random import Purpose, normal, uniform

INITIALIZERS = ("uniform", "normal", "fan_in")

Parameters = dict[str, NDArray]


def parameter_shapes(config: RHNConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor, in the canonical order.

    The tensors are `embedding` (V, E); for each layer i `layers.{i}.input_weight` (G, E_i, H),
    `layers.{i}.recurrent_weight` (L, G, H, H) and `layers.{i}.bias` (L, G, H); `softmax.weight` (H, V), if weights are
    not tied; `softmax.bias` (V,); and `projection.weight` (H, E), if weights are tied and E differs from H.
    """
    depth, gates, hidden = config.recurrence_depth, config.num_gates, config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"embedding": (config.vocab_size, config.embedding_width)}
    for i in range(config.num_layers):
        shapes[f"layers.{i}.input_weight"] = (gates, config.input_size(i), hidden)
        shapes[f"layers.{i}.recurrent_weight"] = (depth, gates, hidden, hidden)
        shapes[f"layers.{i}.bias"] = (depth, gates, hidden)
    if not config.tie_weights:
        shapes["softmax.weight"] = (hidden, config.vocab_size)
    shapes["softmax.bias"] = (config.vocab_size,)
    if config.has_projection:
        shapes["projection.weight"] = (hidden, config.embedding_width)
    return shapes


def parameter_count(config: RHNConfig) -> int:
    """Number of trained numbers; a tied embedding counts once."""

    def count(num_layers: int) -> int:
        return sum(math.prod(shape) for shape in parameter_shapes(replace(config, num_layers=num_layers)).values())

    # All layers except the first have the same size. They are not listed, in case num_layers is huge by mistake.
    return count(1) + (config.num_layers - 1) * (count(2) - count(1))


def initial_parameters(
    config: RHNConfig,
    seed: int,
    init_scale: float = 0.04,
    transform_bias: float = -2.0,
    other_bias: float | str = "uniform",
    initializer: str = "uniform",
    embedding_init_scale: float | None = None,
) -> Parameters:
    """Initial value of every tensor, in float32, the same for every backend and machine (SPEC.md 1.4 and 1.6).

    By default all values are uniform in (-init_scale, init_scale), with two exceptions: the transform bias starts at
    the constant `transform_bias`, and all other biases start at `other_bias` if that is a number. All of them are
    learned.

    Args:
        config: the architecture.
        seed: 0 <= seed < 2**64.
        init_scale: half-width of the uniform distribution, or standard deviation of the normal one; at least 0.
        transform_bias: initial bias of the transform gate t at every micro-step.
        other_bias: "uniform", or the initial value of the biases of h, c and the softmax.
        initializer: how the matrices are drawn: "uniform"; "normal", with standard deviation `init_scale`; or "fan_in",
            normal with standard deviation 1 / sqrt(fan-in), not truncated. The fan-in of a matrix is the number of its
            inputs; for the embedding it is its width.
        embedding_init_scale: replaces `init_scale`, or 1 / sqrt(fan-in), for the embedding; None replaces nothing.

    Raises:
        ValueError: an argument is not accepted.
    """
    check_initialisation(init_scale, transform_bias, other_bias, initializer, embedding_init_scale)
    parameters: Parameters = {}
    for index, (name, shape) in enumerate(parameter_shapes(config).items()):
        is_bias, scale = name.endswith("bias"), init_scale
        if initializer == "fan_in" and not is_bias:
            scale = 1.0 / math.sqrt(shape[-1 if name == "embedding" else -2])
        if name == "embedding" and embedding_init_scale is not None:
            scale = embedding_init_scale
        if initializer == "uniform" or is_bias:
            draw = 2.0 * uniform(seed, Purpose.PARAMETERS, shape, index=index) - 1.0
        else:
            draw = normal(seed, Purpose.PARAMETERS, shape, index=index)
        value = (draw * scale).astype(np.float32)
        if name.endswith("bias") and other_bias != "uniform":
            value[...] = other_bias
        if name.endswith(".bias") and name.startswith("layers."):
            value[:, config.gates.index("t")] = transform_bias
        parameters[name] = value
    return parameters


def check_initialisation(
    init_scale: float,
    transform_bias: float,
    other_bias: float | str,
    initializer: str,
    embedding_init_scale: float | None,
) -> None:
    """Raise ValueError unless `initial_parameters` accepts these arguments."""
    check_number("init_scale", init_scale, zero=True)
    check_choice("initializer", initializer, INITIALIZERS)
    if embedding_init_scale is not None:
        check_number("embedding_init_scale", embedding_init_scale, zero=True)
    if not is_number(transform_bias):
        raise refusal("transform_bias", transform_bias, "a finite number")
    if other_bias != "uniform" and not is_number(other_bias):
        raise refusal("other_bias", other_bias, "'uniform' or a finite number")


def check_parameters(config: RHNConfig, parameters: Mapping[str, NDArray]) -> None:
    """Raise ValueError unless `parameters` holds exactly the tensors of `config`, each of the right shape."""
    shapes = parameter_shapes(config)
    missing = [name for name in shapes if name not in parameters]
    unknown = [name for name in parameters if name not in shapes]
    if missing or unknown:
        raise ValueError(
            f"parameters do not fit the configuration: missing {', '.join(missing) or 'none'};"
            f" not expected {', '.join(unknown) or 'none'}"
        )
    for name, shape in shapes.items():
        if tuple(np.shape(parameters[name])) != shape:
            raise ValueError(
                f"parameter {name} has shape {tuple(np.shape(parameters[name]))}, the configuration needs {shape}"
            )
