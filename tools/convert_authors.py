"""Convert what the authors' programs computed (NumPy archives, see their INDEX.md) to rhn_conformance/vectors/authors.

    python tools/convert_authors.py ../shared/authors-golden

Tensors get the names and layouts of `rhn.spec.parameters`; nothing is computed, only moved, cut, stacked and
transposed. Both precisions of a case go into one file. Arrays that are equal in both are stored once, as float32. The
output depends on the input alone, byte for byte.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from rhn import RHNConfig

DTYPES = ("float32", "float64")
LANGUAGE_MODELS = (
    "tf_nodrop_untied",
    "tf_tiny",
    "tf_untied_small_vocab",
    "theano_tiny",
    "theano_untied_noise",
    "theano_untied_small_vocab",
)
LAYERS = ("brainstorm_depth1", "brainstorm_depth1_context", "brainstorm_depth3")
OUTPUT = Path(__file__).parents[1] / "conformance" / "rhn_conformance" / "vectors" / "authors"

# Our name of a number -> the archive's. Not every program has every one of them.
SCALARS = {
    "loss": "cost",
    "loss_with_weight_decay": "cost_wd",
    "grad_norm": "global_norm_dense",
    "clip_norm": "global_norm",
    "clip_norm_without_weight_decay": "global_norm_nowd",
    "learning_rate": "lr",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "second_step/loss_with_weight_decay": "step2/cost_wd",
    "evaluation/loss": "eval_cost",
    "evaluation/loss_with_weight_decay": "eval_cost_wd",
}
# Our name of a set of tensors -> the prefix of the archive.
TENSOR_SETS = {
    "parameters": "param/",
    "gradients": "grad/",
    "gradients_without_weight_decay": "grad_nowd/",
    "new_parameters": "new/",
    "second_step/new_parameters": "step2/new/",
}

ORIGIN = {
    "repository": "https://github.com/jzilly/RecurrentHighwayNetworks",
    "commit": "9ab03a36ed548fe4267f993e47494e417cd4bdab",
    "commit_date": "2017-06-22",
    "license": "MIT, Copyright (c) 2016 The Swiss AI lab IDSIA",
    "programs": {
        "tf float32": "rhn.py unmodified, TensorFlow 0.12.1, Python 2.7.18",
        "tf float64": "the same with float32 replaced by float64 in 7 lines of rhn.py",
        "theano": "theano_rhn.py unmodified, masks fed from outside, Theano 1.0.5, Python 2.7.18",
        "brainstorm": "brainstorm_rhn.py unmodified, brainstorm 0.5, Python 2.7.18",
    },
}

MEANING = {
    "language_models": {
        "tokens, targets": "(B, T) int32; targets are the tokens one position later",
        "masks/*": "0 or 1/keep; input and state per layer (M, B, features), embedding (B, T), output (B, H)",
        "state/{layer}, final_state/{layer}": "(B, H) before and after the window",
        "parameters/*": "before the step",
        "logits, losses": "(B, T, V), and (B, T) negative log-likelihoods in nats",
        "gradients/*": "of loss_with_weight_decay, not clipped",
        "gradients_without_weight_decay/*": "of loss, not clipped",
        "new_parameters/*": "after one step of SGD with clipped gradients",
        "second_step/*": "after a second step, same window and masks, from final_state and new_parameters",
        "embedding_slices/{rows,values}": "TensorFlow: pieces of the embedding's gradient before they are added up",
        "loss": "summed over time, averaged over the batch; with weight decay, 0.5 * weight_decay * sum(p**2) more",
        "grad_norm": "true global norm of gradients; clip_norm is the norm that the program clips with",
        "evaluation/*": "Theano: the same window and parameters without masks",
    },
    "layers": {
        "inputs, state": "(B, T, E), and (B, H) before the window",
        "parameters/*": "input_weight (G, E, H), recurrent_weight (L, G, H, H), bias (L, G, H)",
        "outputs": "(B, T, H) states after each time step",
        "micro_steps/{h,t,s}": "(L, B, T, H) candidate, transform gate, state after the micro-step",
        "loss": "sum(outputs * d_outputs)",
        "d_outputs": "(B, T, H) derivative of the loss by the outputs; total_d_outputs: through later steps too",
        "gradients/*, d_inputs": "derivative of the loss by parameters and by inputs",
    },
}

Arrays = dict[str, NDArray]
Reader = Callable[[str], NDArray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of the authors' .npz files")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder to write to (default: %(default)s)")
    arguments = parser.parse_args()
    convert(arguments.source, arguments.output)


def convert(source: Path, output: Path) -> None:
    """Write one safetensors file per case, and manifest.json, which describes them all."""
    output.mkdir(parents=True, exist_ok=True)
    manifest: dict[str, Any] = {"origin": ORIGIN, "meaning": MEANING, "language_models": {}, "layers": {}}
    for kind, names, convert_arrays in (
        ("language_models", LANGUAGE_MODELS, _language_model),
        ("layers", LAYERS, _layer),
    ):
        for name in names:
            archives = {dtype: _read(source / f"{name}_{dtype}.npz") for dtype in DTYPES}
            arrays = {dtype: convert_arrays(name, archive) for dtype, archive in archives.items()}
            (output / f"{name}.safetensors").write_bytes(safetensors.numpy.save(_merge(arrays)))
            entry = manifest[kind][name] = {"config": _config(name, archives["float64"])}
            entry["numbers"] = {dtype: _numbers(archive) for dtype, archive in archives.items()}
            entry["authors_config"] = {dtype: json.loads(str(archive["config"])) for dtype, archive in archives.items()}
    (output / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def _read(path: Path) -> Arrays:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def _merge(arrays: dict[str, Arrays]) -> Arrays:
    """Both precisions in one: `name` where they hold the same numbers, else `float32/name` and `float64/name`."""
    merged: Arrays = {}
    for name, single in arrays["float32"].items():
        double = arrays["float64"][name]
        if np.array_equal(single, double):
            merged[name] = np.ascontiguousarray(single)
        else:
            merged[f"float32/{name}"] = np.ascontiguousarray(single)
            merged[f"float64/{name}"] = np.ascontiguousarray(double)
    return merged


def _config(name: str, archive: Arrays) -> dict[str, Any]:
    theirs = json.loads(str(archive["config"]))
    if name in LAYERS:
        return {
            "input_size": theirs["in_size"],
            "hidden_size": theirs["size"],
            "recurrence_depth": theirs["recurrence_depth"],
            "activation": theirs["activation"],
        }
    return RHNConfig(
        vocab_size=theirs["vocab_size"],
        hidden_size=theirs["hidden_size"],
        recurrence_depth=theirs["depth"],
        num_layers=theirs["num_layers"],
        embedding_size=theirs["in_size"],
        tie_weights=theirs["tied"],
        share_gate_masks=theirs.get("tied_noise", True),
    ).to_dict()


def _numbers(archive: Arrays) -> dict[str, float]:
    if "cost" not in archive:  # a bare layer
        return {"loss": float(archive["loss"])}
    numbers = {ours: float(archive[theirs]) for ours, theirs in SCALARS.items() if theirs in archive}
    # Theano adds up a gradient before it takes the norm, so that its one norm is the true one.
    true_norm = archive.get("global_norm_nowd_dense", archive["global_norm_nowd"])
    numbers["grad_norm_without_weight_decay"] = float(true_norm)
    return numbers


# ---------------------------------------------------------------------------------------------------------------------
# TensorFlow and Theano: language models
# ---------------------------------------------------------------------------------------------------------------------


def _language_model(name: str, archive: Arrays) -> Arrays:
    config = RHNConfig(**_config(name, archive))
    tensors_of = _tensorflow_tensors if name.startswith("tf_") else _theano_tensors

    arrays: Arrays = {
        "tokens": archive["x"],  # (B, T)
        "targets": archive["y"],  # (B, T)
        "masks/embedding": archive["noise_x"].reshape(archive["x"].shape),  # (B, T)
        "masks/output": archive["noise_o"][:, 0],  # (B, H)
        "logits": archive["logits"],  # (B, T, V)
        "losses": archive["loss"],  # (B, T)
    }
    for i in range(config.num_layers):
        for ours, theirs in (("input", "noise_i"), ("state", "noise_h")):
            masks = [archive[theirs]] if config.share_gate_masks else [archive[theirs], archive[f"{theirs}_T"]]
            arrays[f"masks/{ours}/{i}"] = np.stack([mask[:, :, i] for mask in masks])  # (M, B, E_i or H)
        arrays[f"state/{i}"] = archive["initial_state"][i]  # (B, H)
        arrays[f"final_state/{i}"] = archive["final_state"][i]  # (B, H)
        arrays[f"second_step/final_state/{i}"] = archive["step2/final_state"][i]  # (B, H)
    for ours, prefix in TENSOR_SETS.items():
        tensors = {key.removeprefix(prefix): value for key, value in archive.items() if key.startswith(prefix)}
        arrays |= {f"{ours}/{key}": tensor for key, tensor in tensors_of(config, tensors.__getitem__).items()}
    if name.startswith("tf_"):
        arrays["embedding_slices/rows"] = archive["slices/embedding/indices"]  # (N,)
        arrays["embedding_slices/values"] = archive["slices/embedding/values"]  # (N, E)
    return arrays


def _tensorflow_tensors(config: RHNConfig, read: Reader) -> Arrays:
    """The matrix of the first micro-step holds the input weight above the recurrent weight."""
    tensors = {"embedding": read("model/embedding")}
    for i in range(config.num_layers):
        first, *later = (
            _per_gate(read, f"model/RHN{i}/*_{level}/Linear/Matrix", "ht") for level in range(config.recurrence_depth)
        )  # (G, E_i + H, H), then L-1 times (G, H, H)
        biases = [
            _per_gate(read, f"model/RHN{i}/*_{level}/Linear/Bias", "ht") for level in range(config.recurrence_depth)
        ]
        tensors[f"layers.{i}.input_weight"] = first[:, : config.input_size(i)]
        tensors[f"layers.{i}.recurrent_weight"] = np.stack([first[:, config.input_size(i) :], *later])
        tensors[f"layers.{i}.bias"] = np.stack(biases)
    if not config.tie_weights:
        tensors["softmax.weight"] = read("model/softmax_w")
    tensors["softmax.bias"] = read("model/softmax_b")
    return tensors


def _theano_tensors(config: RHNConfig, read: Reader) -> Arrays:
    """The bias of the first micro-step is named after the input product, to which it is added."""
    tensors = {"embedding": read("embedding")}
    for i in range(config.num_layers):
        recurrent = [_per_gate(read, f"RHN{i}/s_*_W_{level}", "HT") for level in range(config.recurrence_depth)]
        biases = [_per_gate(read, f"RHN{i}/i_*_b", "HT")]
        biases += [_per_gate(read, f"RHN{i}/s_*_b_{level}", "HT") for level in range(1, config.recurrence_depth)]
        tensors[f"layers.{i}.input_weight"] = _per_gate(read, f"RHN{i}/i_*_W", "HT")
        tensors[f"layers.{i}.recurrent_weight"] = np.stack(recurrent)
        tensors[f"layers.{i}.bias"] = np.stack(biases)
    if not config.tie_weights:
        tensors["softmax.weight"] = read("softmax_w")
    tensors["softmax.bias"] = read("softmax_b")
    return tensors


def _per_gate(read: Reader, pattern: str, letters: str) -> NDArray:
    """The tensors of h and t on a gate axis in front; the star in `pattern` stands for the gate's letter."""
    return np.stack([read(pattern.replace("*", letter)) for letter in letters])


# ---------------------------------------------------------------------------------------------------------------------
# Brainstorm: a bare layer, time before batch, weights stored with the output first
# ---------------------------------------------------------------------------------------------------------------------


def _layer(_name: str, archive: Arrays) -> Arrays:
    arrays: Arrays = {
        "inputs": _batch_first(archive["inputs"]),  # (B, T, E)
        "state": archive["context"],  # (B, H)
        "outputs": _batch_first(archive["outputs"]),  # (B, T, H)
        "d_outputs": _batch_first(archive["output_deltas"]),  # (B, T, H)
        "total_d_outputs": _batch_first(archive["output_deltas_after_backward"]),  # (B, T, H)
        "d_inputs": _batch_first(archive["input_deltas"]),  # (B, T, E)
    }
    depth = len(archive["param/bias_H"])
    for ours, theirs in (("h", "H"), ("t", "T"), ("s", "Y")):
        levels = [_batch_first(archive[f"internals/{theirs}_{level}"]) for level in range(depth)]
        arrays[f"micro_steps/{ours}"] = np.stack(levels)  # (L, B, T, H)
    for ours, prefix in (("parameters", "param"), ("gradients", "grad")):
        arrays[f"{ours}/input_weight"] = np.stack([archive[f"{prefix}/W_{gate}"].T for gate in "HT"])  # (G, E, H)
        arrays[f"{ours}/recurrent_weight"] = np.stack(
            [archive[f"{prefix}/R_{gate}"].transpose(0, 2, 1) for gate in "HT"], axis=1
        )  # (L, G, H, H)
        arrays[f"{ours}/bias"] = np.stack([archive[f"{prefix}/bias_{gate}"] for gate in "HT"], axis=1)  # (L, G, H)
    return arrays


def _batch_first(array: NDArray) -> NDArray:
    return array.transpose(1, 0, 2)


if __name__ == "__main__":
    main()
