"""The command `export_hub`: writes a checkpoint as a folder to share, with a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rhn.checkpoint import FILE_OF_FOLDER, save_checkpoint
from rhn.files import remove_leftovers, write_atomically, written_whole
from rhn.training.evaluate.result import beside
from rhn.training.options import DEFAULTS, OPTIONS, OptionError
from rhn.training.report.model_card import model_card
from rhn.training.run.checkpoint import TrainedModel, described_options, named_checkpoint
from rhn.training.terminal.console import say

# The options that the folder shows: how the model was trained, but no file or folder of the machine.
_TOLD = tuple(
    name
    for name, option in OPTIONS.items()
    if (option.group in ("data", "model", "training", "dropout") or name in ("dtype", "seed")) and name != "data_path"
)


def export_hub(backend_name: str, values: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """The command: write what is needed to use a checkpoint, and nothing else, into a new folder; returns its name.

    The folder holds the parameters with vocabulary and options (`model.safetensors`), the same options for people and
    programs that look for `config.json`, and the card (`README.md`). No framework is loaded.

    Args:
        backend_name: not used; every backend writes the same.
        values: of all options of this command line.
        given: the options that the user gave.

    Raises:
        ValueError, OSError: with one sentence for the user.
    """
    path = named_checkpoint(values)
    folder = Path(values["folder"] or beside(path, "hub"))
    _check_folder(folder)
    model = TrainedModel.read(path)
    parameters = _stored(model.checkpoint.parameters, values["stored_dtype"])
    options = described_options(path, model, _TOLD)
    stored_dtype = parameters["embedding"].dtype.name
    metadata = {
        "backend": model.metadata.get("backend"),
        "config": model.config.to_dict(),
        "options": options,
        "data": model.metadata.get("data"),
    }
    card = model_card(
        folder.resolve().name,
        Path(path),
        model,
        {**DEFAULTS, **options},
        stored_dtype=stored_dtype,
        license=values["license"],
    )
    remove_leftovers(folder.parent, folder.name)
    with written_whole(folder) as new:
        save_checkpoint(new / FILE_OF_FOLDER, parameters, {**metadata, "vocabulary": model.vocabulary.to_json()})
        write_atomically(new / "config.json", (json.dumps(metadata, indent=2) + "\n").encode())
        write_atomically(new / "README.md", card)
        size = sum(file.stat().st_size for file in new.iterdir())
    say(f"written: {folder}, {size / 1e6:.1f} MB, parameters in {stored_dtype}")
    return str(folder)


def _check_folder(folder: Path) -> None:
    """OptionError unless the folder can be made: nothing is overwritten."""
    if not folder.resolve().parent.is_dir():
        raise OptionError(f"folder={str(folder)!r} is not accepted: expected a name in a folder that exists")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise OptionError(
            f"folder={str(folder)!r} is not accepted: it is there already and not empty; remove it, or choose another"
            " name"
        )


def _stored(parameters: Mapping[str, NDArray], dtype: str | None) -> dict[str, NDArray]:
    """The parameters in `dtype`; None keeps their own.

    There is no bfloat16. It has the same size and a range that no trained model needs, and changes a score 50 times as
    much: by 1.3e-4 instead of 2.6e-6 nats for the model in docs/train.md.

    Raises:
        OptionError: a parameter is too large for `dtype`.
    """
    if dtype is None:
        return dict(parameters)
    for name, value in parameters.items():
        if np.abs(value).max(initial=0) > np.finfo(dtype).max:
            raise OptionError(f"stored_dtype={dtype!r} is not accepted: {name} holds {np.abs(value).max():g}")
    return {name: value.astype(dtype) for name, value in parameters.items()}
