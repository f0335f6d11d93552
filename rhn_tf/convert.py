"""rhn-convert: converts a checkpoint of the authors' TensorFlow 1 program to a checkpoint of this project.

    rhn-convert ptb_1_best_model.ckpt converted.safetensors --dataset ptb
    python -m rhn_torch.train evaluate with checkpoint=converted.safetensors

Their program is `rhn_train.py` of jzilly/RecurrentHighwayNetworks (2017). It saves these tensors, named by scopes:

    model/embedding                          (V, E)
    model/RHN{layer}/h_0/Linear/Matrix       (E_i + H, H)   input rows, then recurrent rows; t_0 likewise
    model/RHN{layer}/h_{micro_step}/Linear/Matrix (H, H)         micro-steps > 0; t_{micro_step} likewise
    model/RHN{layer}/h_{micro_step}/Linear/Bias   (H,)           t_{micro_step} likewise
    model/softmax_w                          (H, V)         only if not tied
    model/softmax_b                          (V,)
    model/Variable                           ()             the learning rate
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from rhn.checkpoint import CheckpointError, save_checkpoint
from rhn.spec.config import RHNConfig
from rhn.spec.parameters import Parameters, parameter_count

# State of the training, not weights: the authors' learning rate, and variables of TensorFlow's optimisers.
_TRAINING_STATE = re.compile(r"(.*/)?(Variable|global_step|beta[12]_power|Momentum|Adagrad|Adam|RMSProp)(_\d+)?")


def read_variables(prefix: str | os.PathLike[str]) -> dict[str, NDArray]:
    """All variables of a TensorFlow checkpoint of format V2, by name.

    Args:
        prefix: path of the checkpoint as TensorFlow prints it, that is, without `.index` or `.data-00000-of-00001`.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    prefix = os.fspath(prefix)
    if not Path(f"{prefix}.index").is_file():
        raise CheckpointError(
            f"{prefix} is no TensorFlow checkpoint: there is no file {prefix}.index (give the path without .index)"
        )
    try:
        reader = tf.train.load_checkpoint(prefix)
        return {name: np.asarray(reader.get_tensor(name)) for name in sorted(reader.get_variable_to_shape_map())}
    except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:  # TensorFlow has no one kind for this
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"the TensorFlow checkpoint {prefix} is damaged ({reason})") from error


def convert_variables(variables: Mapping[str, NDArray]) -> tuple[RHNConfig, Parameters, list[str]]:
    """The model that the authors' variables describe.

    Args:
        variables: as `read_variables` gives them.

    Returns:
        The configuration, the tensors of `rhn.spec.parameters` in the dtype of the variables, and the names of the
        variables that are state of the training and were left out.

    Raises:
        CheckpointError: a variable is missing, unexpected or of a shape that does not fit the others.
    """
    left_out = [name for name in variables if _TRAINING_STATE.fullmatch(name)]
    weights = {name: value for name, value in variables.items() if name not in left_out}
    config = _infer_config(weights)
    _check_weights(config, weights)
    return config, _to_parameters(config, weights), left_out


def _infer_config(weights: Mapping[str, NDArray]) -> RHNConfig:
    """Sizes from shapes, numbers of layers and micro-steps from names; `_check_weights` finds whatever does not fit."""
    embedding = weights.get("model/embedding")  # (V, E)
    bias = weights.get("model/RHN0/h_0/Linear/Bias")  # (H,)
    if embedding is None or embedding.ndim != 2 or bias is None or bias.ndim != 1:
        found = ", ".join(weights) or "nothing"
        raise CheckpointError(
            "this is not a checkpoint of the authors' program: it needs the matrix model/embedding and the vector"
            f" model/RHN0/h_0/Linear/Bias, and holds {found if len(found) < 200 else found[:200] + ' ...'}"
        )
    cells = [match for name in weights if (match := re.fullmatch(r"model/RHN(\d+)/[ht]_(\d+)/Linear/\w+", name))]
    width, hidden_size = embedding.shape[1], bias.shape[0]
    return RHNConfig(
        vocab_size=embedding.shape[0],
        hidden_size=hidden_size,
        recurrence_depth=1 + max(int(match[2]) for match in cells),
        num_layers=1 + max(int(match[1]) for match in cells),
        embedding_size=width,
        # An embedding narrower than the layers cannot be tied: then a softmax weight is missing.
        tie_weights="model/softmax_w" not in weights and width == hidden_size,
    )


def _check_weights(config: RHNConfig, weights: Mapping[str, NDArray]) -> None:
    shapes = _shapes(config)
    missing = [name for name in shapes if name not in weights]
    unexpected = [name for name in weights if name not in shapes]
    if missing or unexpected:
        raise CheckpointError(
            f"this is not a checkpoint of the authors' program with num_layers={config.num_layers} and"
            f" depth={config.recurrence_depth}: missing {', '.join(missing) or 'nothing'};"
            f" not expected {', '.join(unexpected) or 'nothing'}"
        )
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise CheckpointError(
                f"variable {name} has shape {weights[name].shape}, where the other variables need {shape}"
            )


def _shapes(config: RHNConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every weight of the authors' program, by its name there."""
    hidden = config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"model/embedding": (config.vocab_size, config.embedding_width)}
    for layer in range(config.num_layers):
        for micro_step in range(config.recurrence_depth):
            for gate in config.gates:
                rows = hidden + config.input_size(layer) if micro_step == 0 else hidden
                shapes[_name(layer, gate, micro_step, "Matrix")] = (rows, hidden)
                shapes[_name(layer, gate, micro_step, "Bias")] = (hidden,)
    if not config.tie_weights:
        shapes["model/softmax_w"] = (hidden, config.vocab_size)
    shapes["model/softmax_b"] = (config.vocab_size,)
    return shapes


def _to_parameters(config: RHNConfig, weights: Mapping[str, NDArray]) -> Parameters:
    gates, micro_steps = config.gates, range(config.recurrence_depth)
    parameters = {"embedding": weights["model/embedding"]}
    for layer in range(config.num_layers):
        # Per micro-step and gate (E_i + H, H) at the first micro-step, (H, H) after it.
        matrices = [[weights[_name(layer, gate, step, "Matrix")] for gate in gates] for step in micro_steps]
        inputs = config.input_size(layer)
        parameters[f"layers.{layer}.input_weight"] = np.stack(
            [matrix[:inputs] for matrix in matrices[0]]
        )  # (G, E_i, H)
        matrices[0] = [matrix[inputs:] for matrix in matrices[0]]  # (H, H) each
        parameters[f"layers.{layer}.recurrent_weight"] = np.array(matrices)  # (L, G, H, H)
        parameters[f"layers.{layer}.bias"] = np.array(
            [[weights[_name(layer, gate, step, "Bias")] for gate in gates] for step in micro_steps]
        )  # (L, G, H)
    if not config.tie_weights:
        parameters["softmax.weight"] = weights["model/softmax_w"]
    parameters["softmax.bias"] = weights["model/softmax_b"]
    return parameters


def _name(layer: int, gate: str, micro_step: int, kind: str) -> str:
    """Name of a "Matrix" or "Bias" in the authors' program."""
    return f"model/RHN{layer}/{gate}_{micro_step}/Linear/{kind}"


def _metadata(config: RHNConfig, vocabulary: Any, data_options: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata that `rhn.training` stores with a checkpoint, as far as they are known here."""
    metadata: dict[str, Any] = {"backend": "the authors' TensorFlow program", "config": config.to_dict()}
    if vocabulary is not None:
        metadata["options"] = {**config.to_dict(), **data_options}
        metadata["vocabulary"] = vocabulary
    return metadata


def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the words after the program's name (None: the process's)."""
    from rhn_datasets import CORPORA, DataError, load_corpus  # needed by this command only, not by the port

    parser = argparse.ArgumentParser(prog="rhn-convert", description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", help="TensorFlow checkpoint (V2), without .index or .data-00000-of-00001")
    parser.add_argument("output", type=Path, help="file to write, *.safetensors")
    parser.add_argument("--dataset", choices=CORPORA, help="what it was trained on; `evaluate` needs the vocabulary")
    parser.add_argument("--data-path", help="file or folder with the data; otherwise the cache, then a download")
    parser.add_argument("--level", help="word, char or byte, where the data leave a choice")
    given = parser.parse_args(arguments)
    data_options = {"dataset": given.dataset, "data_path": given.data_path, "level": given.level}
    vocabulary = None  # the symbols of the corpus in the order of their ids, which is the authors' order
    try:
        config, parameters, left_out = convert_variables(read_variables(given.checkpoint))
        if given.dataset is not None:
            corpus = load_corpus(given.dataset, given.data_path, level=given.level)
            if len(corpus.vocabulary) != config.vocab_size:
                raise CheckpointError(
                    f"--dataset {corpus.name} has {len(corpus.vocabulary)} symbols, the checkpoint {config.vocab_size}"
                )
            vocabulary = corpus.vocabulary.to_json()
        save_checkpoint(given.output, parameters, _metadata(config, vocabulary, data_options))
    except (CheckpointError, DataError, OSError) as error:
        sys.exit(f"error: {error}")
    print(
        f"{given.output}: {config.num_layers} x {config.hidden_size} units, recurrence depth {config.recurrence_depth},"
        f" vocabulary {config.vocab_size:,}, {'tied' if config.tie_weights else 'untied'},"
        f" {parameter_count(config):,} parameters"
    )
    if left_out:
        print(f"left out, being state of the training: {', '.join(left_out)}")
    if vocabulary is None:
        print("without a vocabulary: to score it with `evaluate`, convert it again with --dataset")


if __name__ == "__main__":
    main()
