"""The frozen vectors in this package: how they are made, and the check that they can be made again.

Inputs come from the raw bits of a counter-based generator, right answers from decimal arithmetic. Neither depends on
the machine, so both regenerate bit for bit anywhere. vectors/README.md says how to use them without Python.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from rhn import preflight
from rhn.spec.masks import DropRates, VariationalMasks, sample_masks
from rhn.spec.parameters import parameter_shapes
from rhn.spec.random import Purpose, uniform
from rhn_conformance.case import Inputs, Tensors
from rhn_conformance.cases.numbers import Description, make_inputs, representable
from rhn_conformance.cases.synthetic import DESCRIPTIONS
from rhn_conformance.rewritten.exact import exact_answers, exact_model

FOLDER = Path(str(resources.files("rhn_conformance"))) / "vectors"
FILES = {
    "cases.safetensors": FOLDER / "cases.safetensors",
    "preflight.safetensors": Path(str(preflight.VECTORS)),  # in the package that runs the preflight
    "manifest.json": FOLDER / "manifest.json",
}

FROZEN_CASES = (
    "plain",
    "repeated-tokens",
    "tied",
    "uncoupled",
    "relu",
    "two-layers",
    "mask-embedding",
    "masks-shared",
    "masks-separate",
    "masks-separate-uncoupled",
    "weight-decay",
    "clipping",
    "clipping-with-decay",
    "saturated-gates",
)
_CHECKS = ("forward", "loss", "evaluation", "gradients", "hand-over", "training")


def write_vectors() -> str:
    """Write all files anew. Returns one line per file."""
    cases, small_models, manifest = _make()
    FILES["cases.safetensors"].write_bytes(safetensors.numpy.save(cases))
    FILES["preflight.safetensors"].write_bytes(safetensors.numpy.save(small_models))
    FILES["manifest.json"].write_text(_as_text(manifest))
    size = sum(file.stat().st_size for file in FILES.values())
    return f"{len(FROZEN_CASES)} cases and {len(preflight.variants())} small models, {size / 1000:.0f} kB"


def check_vectors() -> list[str]:
    """One line per difference between the files and their right contents, bit for bit; empty if all is well."""
    cases, small_models, manifest = _make()
    differences = _differences("cases.safetensors", cases) + _differences("preflight.safetensors", small_models)
    if FILES["manifest.json"].read_text() != _as_text(manifest):
        differences.append("manifest.json differs")
    return differences


def _differences(name: str, expected: Tensors) -> list[str]:
    stored = safetensors.numpy.load_file(FILES[name])
    differences = [f"{name}: {tensor} is missing" for tensor in expected if tensor not in stored]
    differences += [f"{name}: {tensor} should not be there" for tensor in stored if tensor not in expected]
    for tensor in expected.keys() & stored.keys():
        is_, should = stored[tensor], expected[tensor]
        if is_.dtype != should.dtype or is_.shape != should.shape or is_.tobytes() != should.tobytes():
            differences.append(f"{name}: {tensor} differs")
    return sorted(differences)


def _make() -> tuple[Tensors, Tensors, dict[str, Any]]:
    """Tensors of the cases, tensors of the small models of the preflight, manifest."""
    by_name = {description.name: description for description in DESCRIPTIONS}
    cases: Tensors = {}
    entries: dict[str, Any] = {}
    for name in FROZEN_CASES:
        inputs = make_inputs(by_name[name])
        cases |= {f"{name}/{key}": _contiguous(value) for key, value in _case_tensors(inputs).items()}
        entries[name] = _entry(by_name[name], inputs)

    small_models: Tensors = {}
    for variant in preflight.variants():
        tensors = _small_model(variant)
        small_models |= {f"{variant}/{key}": _contiguous(value) for key, value in tensors.items()}
    manifest = {
        "format_version": 1,
        "cases": entries,
        "preflight": {
            "configs": {v: preflight.variant_config(v).to_dict() for v in preflight.variants()},
            "training": [asdict(s) for s in preflight.TRAINING],
            "evaluation": [s.name for s in preflight.EVALUATION],
        },
    }
    return cases, small_models, manifest


def _case_tensors(inputs: Inputs) -> Tensors:
    window = inputs.double_window
    tensors: Tensors = {f"inputs/parameters/{name}": value for name, value in inputs.parameters.items()}
    tensors |= {"inputs/tokens": window.tokens, "inputs/targets": window.targets}
    for layer, state in enumerate(inputs.state or []):
        tensors[f"inputs/state/{layer}"] = state.astype(np.float32)
    tensors |= _mask_tensors("inputs/masks", window.masks)
    tensors |= _mask_tensors("inputs/masks_of_second_step", inputs.steps[1].window.masks)
    answers = exact_answers(inputs)
    for check in _CHECKS:
        tensors |= {f"expected/{check}/{name}": value for name, value in answers[check].items()}
    return tensors


def _mask_tensors(folder: str, masks: VariationalMasks | None) -> Tensors:
    if masks is None:
        return {}
    tensors: Tensors = {}
    for kind, mask in masks._asdict().items():
        if isinstance(mask, list):
            tensors |= {f"{folder}/{kind}/{layer}": m.astype(np.float32) for layer, m in enumerate(mask)}
        elif mask is not None:
            tensors[f"{folder}/{kind}"] = mask.astype(np.float32)
    return tensors


def _entry(description: Description, inputs: Inputs) -> dict[str, Any]:
    return {
        "clauses": description.clauses,
        "config": description.config.to_dict(),
        "batch_size": description.batch_size,
        "length": description.length,
        "initial_state": "given" if description.given_state else "zero",
        "masks": [name.removeprefix("drop_") for name, rate in description.rates._asdict().items() if rate],
        "learning_rate": description.learning_rate,
        "weight_decay": description.weight_decay,
        "max_grad_norm": description.max_grad_norm,
    }


def _small_model(variant: str) -> Tensors:
    """Inputs and right answers of the preflight of one variant; see `preflight.answers`."""
    config, seed = preflight.variant_config(variant), zlib.crc32(variant.encode())
    batch_size, length = 2, 3
    situations = (*preflight.TRAINING, *preflight.EVALUATION)
    stream = uniform(seed, Purpose.GENERATION, (len(situations), batch_size, length + 1))  # (12, B, T + 1)
    word_types = np.array([3 if s.repeat_tokens else config.vocab_size for s in situations])
    words = (stream * word_types[:, None, None]).astype(np.int32)  # (12, B, T + 1)
    tensors: Tensors = {"tokens": words[:, :, :-1], "targets": words[:, :, 1:]}
    for index, (name, shape) in enumerate(parameter_shapes(config).items()):
        draw = uniform(seed, Purpose.PARAMETERS, shape, index=index)
        tensors[f"parameters/{name}"] = (1.4 * draw - 0.7).astype(np.float32)

    has_all_masks = preflight.has_all_masks(variant)
    # Masks for every time step and update masks make the states larger. With the full rates, rounding errors would grow
    # so much (130 ULP in the reference instead of 15) that a right backend could be refused in tf32.
    most, update_rate = (0.5, 0.1) if has_all_masks else (1.0, 0.0)
    masks = [
        representable(
            sample_masks(
                config,
                tensors["tokens"][step],
                DropRates(*[min(s.drop_rate, most)] * 4)._replace(drop_update=update_rate),
                seed,
                step,
                time_masks=has_all_masks,
                reset_probability=min(s.drop_rate, most) if has_all_masks else 0.0,
            )
        )
        for step, s in enumerate(preflight.TRAINING)
    ]
    tensors |= {
        "masks/embedding": np.stack([m.embedding for m in masks]).astype(np.float32),  # (10, B, T)
        "masks/input": np.stack([m.input[0] for m in masks]).astype(np.float32),  # (10, M, B, E) or (10, M, B, T, E)
        "masks/state": np.stack([m.state[0] for m in masks]).astype(np.float32),  # (10, M, B, H)
        "masks/output": np.stack([m.output for m in masks]).astype(np.float32),  # (10, B, H) or (10, B, T, H)
    }
    if has_all_masks:
        tensors["masks/update"] = np.stack([m.update[0] for m in masks]).astype(np.float32)  # (10, B, H)
        tensors["masks/carried"] = np.stack([m.carried for m in masks]).astype(np.float32)  # (10, B)
    model = exact_model(config, preflight.below(tensors, "parameters"))
    expected: Tensors = {}
    for number, answer in enumerate(preflight.answers(model, tensors)):
        expected |= {f"expected/{number}/{name}": np.asarray(value, np.float64) for name, value in answer.items()}
    return {**tensors, **expected}


def _contiguous(array: NDArray) -> NDArray:
    return np.asarray(array, order="C")  # safetensors stores the memory as it lies there


def _as_text(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, indent=1) + "\n"
