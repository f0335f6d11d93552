"""Checkpoints: one safetensors file whose header holds a JSON document, written atomically, read with clear errors."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from rhn.files import write_atomically
from rhn.spec.arguments import check_state
from rhn.spec.config import RHNConfig
from rhn.spec.parameters import check_parameters

FORMAT = "recurrent-highway-networks"
FORMAT_VERSION = 1
FILE_OF_FOLDER = "model.safetensors"  # the checkpoint in a folder that is given instead of a file

# Prefixes of the tensors that stand beside the parameters of a language model.
_STATE = "state."
_OPTIMIZER = "optimizer."
_COUNTERS = (f"{_OPTIMIZER}step", f"{_OPTIMIZER}averaged_steps")


class CheckpointError(ValueError):
    """A file is not a checkpoint of this project, is damaged, or does not fit."""


def save_checkpoint(
    path: str | os.PathLike[str], parameters: Mapping[str, NDArray], metadata: Mapping[str, Any]
) -> None:
    """Write a checkpoint. At any moment, either the old file or the new file is there, complete.

    Args:
        path: the file; its folder must exist.
        parameters: arrays by name, of any dtype that NumPy and safetensors share.
        metadata: configuration and training state, or anything else that JSON can hold. Versions are added under
            "versions".

    Raises:
        CheckpointError: metadata is not JSON, or an array has a dtype that cannot be stored.
        OSError: the file cannot be written; an earlier one at `path` is untouched.
    """
    path = Path(path)
    try:
        document = json.dumps({**metadata, "versions": _versions()})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"metadata of {path.name} cannot be stored as JSON: {error}") from error
    # safetensors stores the memory of an array as it lies there, so it must lie in C order.
    arrays = {name: np.asarray(value, order="C") for name, value in parameters.items()}
    header = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "metadata": document,
        "checksum": _checksum(document, arrays),
    }
    try:
        payload = safetensors.numpy.save(arrays, metadata=header)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"arrays of {path.name} cannot be stored: {error}") from error
    write_atomically(path, payload)


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray], dict[str, Any]]:
    """Read the arrays by name, and the metadata that was saved with them (plus "versions").

    Args:
        path: the checkpoint file, or a folder that contains it as `FILE_OF_FOLDER`.

    Raises:
        CheckpointError: the file cannot be read, is damaged, or is not a checkpoint of a known format version.
    """
    path = _existing_file(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            metadata = _read_metadata(path, header)
            parameters = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except MemoryError as error:
        raise CheckpointError(f"checkpoint {path} is too large for this machine") from error
    except (safetensors.SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"checkpoint {path} is truncated or not a safetensors file ({error})") from error
    # Files of version 0.1 have no checksum. An unknown entry may be a checksum whose name is damaged.
    is_as_saved = header.get("checksum", "") in ("", _checksum(header["metadata"], parameters))
    if not is_as_saved or not set(header) <= {"format", "format_version", "metadata", "checksum"}:
        raise CheckpointError(f"checkpoint {path} is damaged: its content does not match its checksum")
    return parameters, metadata


def _existing_file(path: str | os.PathLike[str]) -> Path:
    """`path`, or the checkpoint in the folder `path`, after a check that it is a readable file."""
    try:
        path = Path(path)
        if path.is_dir():
            path /= FILE_OF_FOLDER
        if path.is_file():
            path.open("rb").close()
            return path
        fault = "does not exist as a file" if path.exists() else "does not exist"
    except OSError as error:
        fault = f"cannot be read ({error.strerror})"
    except (TypeError, ValueError) as error:  # of another type, or with a null in it
        raise CheckpointError(f"checkpoint {path!r} is not accepted: expected the name of a file") from error
    raise CheckpointError(f"checkpoint {path} {fault}")


def _checksum(document: str, arrays: Mapping[str, NDArray]) -> str:
    """SHA-256 of the metadata and all arrays, in hexadecimal (SPEC.md 8.3)."""
    digest = hashlib.sha256(document.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data if array.flags.c_contiguous and array.size else array.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """The arrays of a language model's checkpoint: the parameters, and what a run needs to continue."""

    parameters: Mapping[str, NDArray]
    state: Sequence[NDArray] = ()  # carried, per layer (B, H)
    optimizer_state: Mapping[str, NDArray] = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any]) -> None:
        """Write a file for `load_language_model`; `metadata` must hold the configuration as "config"."""
        tensors = dict(self.parameters)
        tensors.update({f"{_STATE}{i}": s for i, s in enumerate(self.state)})
        tensors.update({f"{_OPTIMIZER}{name}": value for name, value in self.optimizer_state.items()})
        save_checkpoint(path, tensors, metadata)


def load_language_model(path: str | os.PathLike[str]) -> tuple[Checkpoint, RHNConfig, dict[str, Any]]:
    """Read the arrays, the configuration and the metadata of a language model, saved by any backend.

    The parameters are checked: they fit the configuration, are real and finite. If they are stored in float16, they are
    converted to float32.

    Args:
        path: the checkpoint file, or a folder that contains it as `FILE_OF_FOLDER`.

    Raises:
        CheckpointError: the file is not a checkpoint of a language model.
    """
    tensors, metadata = load_checkpoint(path)
    checkpoint = _split(tensors)
    try:
        config = _read_config(metadata["config"], len(tensors))
        check_parameters(config, checkpoint.parameters)
        _check_training_state(config, checkpoint)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} holds no language model of this project ({error})") from error
    for name, value in tensors.items():
        if not np.issubdtype(value.dtype, np.floating) and name not in _COUNTERS:
            raise CheckpointError(f"{path} is damaged: {name} has dtype {value.dtype}, expected real numbers")
        if not np.isfinite(value).all():
            raise CheckpointError(f"{path} cannot be used: {name} holds numbers that are not finite")
    parameters = {name: _at_least_float32(value) for name, value in checkpoint.parameters.items()}
    return replace(checkpoint, parameters=parameters), config, metadata


def _at_least_float32(value: NDArray) -> NDArray:
    return value.astype(np.float32) if value.dtype == np.float16 else value


def _split(tensors: Mapping[str, NDArray]) -> Checkpoint:
    """Sort the tensors of a file into parameters, state and optimiser state."""
    state, optimizer_state, parameters = {}, {}, {}
    for name, value in tensors.items():
        if name.startswith(_STATE):
            state[name] = value
        elif name.startswith(_OPTIMIZER):
            optimizer_state[name.removeprefix(_OPTIMIZER)] = value
        else:
            parameters[name] = value
    in_order = sorted(state, key=lambda name: (len(name), name))
    return Checkpoint(parameters, [state[name] for name in in_order], optimizer_state)


def _check_training_state(config: RHNConfig, checkpoint: Checkpoint) -> None:
    """Raise ValueError unless the carried state and the optimiser state fit such a model."""
    if checkpoint.state:
        check_state(config, checkpoint.state, len(np.atleast_1d(checkpoint.state[0])))
    remembered: dict[str, dict[str, NDArray]] = {}
    for name, value in checkpoint.optimizer_state.items():
        kind, _, parameter = name.partition(".")
        if f"{_OPTIMIZER}{name}" in _COUNTERS:
            if value.shape != () or value.dtype.kind not in "iuf" or not 0 <= value < 2**53 or value % 1:
                raise ValueError(f"{name} is not a number of steps")
        elif kind in ("mean", "square", "average", "momentum") and parameter:
            remembered.setdefault(kind, {})[parameter] = value
        else:
            raise ValueError(f"no optimiser has a {name}")
    if len({"step" in checkpoint.optimizer_state, "mean" in remembered, "square" in remembered}) > 1:
        raise ValueError("the state of Adam needs step, mean and square")
    for tensors in remembered.values():
        check_parameters(config, tensors)


def _read_config(values: Mapping[str, Any], num_tensors: int) -> RHNConfig:
    num_layers = values.get("num_layers", 1)
    if isinstance(num_layers, int) and num_layers > num_tensors:  # before the names of so many layers are made
        raise ValueError(f"num_layers={num_layers} with {num_tensors} tensors")
    return RHNConfig(**values)


def _read_metadata(path: Path, header: Mapping[str, str]) -> dict[str, Any]:
    """The JSON document in the header of the file at `path`, if the file is a checkpoint of this project."""
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a safetensors file, but not a checkpoint of {FORMAT}")
    if header.get("format_version") != str(FORMAT_VERSION):
        raise CheckpointError(
            f"checkpoint {path} has format version {header.get('format_version')}, expected {FORMAT_VERSION}"
        )
    try:
        metadata = json.loads(header["metadata"])
    except (KeyError, ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError
        raise CheckpointError(f"checkpoint {path} has a damaged header") from error
    if not isinstance(metadata, dict):
        raise CheckpointError(f"checkpoint {path} has a damaged header: its metadata are not names and values")
    return metadata


def package_version() -> str:
    """Version of this package; "unknown" if it is not installed."""
    return _versions().get("recurrent-highway-networks", "unknown")


@cache
def _versions() -> Mapping[str, str]:
    versions = {}  # looking for them takes longer than writing a small checkpoint
    for package in ("recurrent-highway-networks", "numpy", "torch", "tensorflow", "keras", "jax", "flax"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
