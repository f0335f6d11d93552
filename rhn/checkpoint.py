"""Checkpoints: one safetensors file whose header holds a JSON document, written atomically, read with clear errors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from rhn.files import write_atomically

FORMAT = "recurrent-highway-networks"
FORMAT_VERSION = 1


class CheckpointError(ValueError):
    """A file is no checkpoint of ours, is damaged, or does not fit."""


def save_checkpoint(
    path: str | os.PathLike[str], parameters: Mapping[str, NDArray], metadata: Mapping[str, Any]
) -> None:
    """Write a checkpoint so that at any moment either the old file or the new one is there, whole.

    Args:
        path: of the file; its folder must exist.
        parameters: arrays by name, any dtype that NumPy and safetensors share.
        metadata: anything JSON can hold: configuration, training state. Versions are added under "versions".

    Raises:
        CheckpointError: metadata is not JSON, or an array has a dtype that cannot be stored.
        OSError: the file cannot be written; an earlier one at `path` is untouched.
    """
    path = Path(path)
    try:
        document = json.dumps({**metadata, "versions": _versions()})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"metadata of {path.name} cannot be stored as JSON: {error}") from error
    header = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "metadata": document}
    # safetensors stores the memory of an array as it lies there, so it must lie in C order.
    arrays = {name: np.asarray(value, order="C") for name, value in parameters.items()}
    try:
        payload = safetensors.numpy.save(arrays, metadata=header)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"arrays of {path.name} cannot be stored: {error}") from error
    write_atomically(path, payload)


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray], dict[str, Any]]:
    """Arrays by name, and the metadata that was saved with them (plus "versions").

    Raises:
        CheckpointError: the file does not exist, is truncated, or is not a checkpoint of a known format version.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = _read_metadata(path, file.metadata() or {})
            parameters = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"checkpoint {path} is truncated or not a safetensors file ({error})") from error
    return parameters, metadata


def _read_metadata(path: Path, header: Mapping[str, str]) -> dict[str, Any]:
    """The JSON document in the header of the file at `path`, if that is a checkpoint of ours."""
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a safetensors file, but not a checkpoint of {FORMAT}")
    if header.get("format_version") != str(FORMAT_VERSION):
        raise CheckpointError(
            f"checkpoint {path} has format version {header.get('format_version')}, accepted is {FORMAT_VERSION}"
        )
    try:
        return json.loads(header["metadata"])
    except (KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"checkpoint {path} has a damaged header") from error


def _versions() -> dict[str, str]:
    versions = {}
    for package in ("recurrent-highway-networks", "numpy", "torch", "tensorflow", "keras", "jax", "flax"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
