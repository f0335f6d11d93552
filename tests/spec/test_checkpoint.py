"""Checkpoints: what comes back, what is said of a file that is none, and that no failure costs the old file."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

import rhn
from rhn import CheckpointError, checkpoint, load_checkpoint, save_checkpoint
from rhn.checkpoint import load_language_model

PARAMETERS = rhn.initial_parameters(rhn.RHNConfig(11, 6, 3, num_layers=2), seed=1)
METADATA = {"config": rhn.RHNConfig(11, 6, 3, num_layers=2).to_dict(), "step": 7, "best": None, "curve": [1.5, 1e-300]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint that was saved well, alone in its folder."""
    save_checkpoint(tmp_path / "last.safetensors", PARAMETERS, METADATA)
    return tmp_path / "last.safetensors"


def assert_is_old(path: Path) -> None:
    """The checkpoint of the fixture `path` is still there, whole, and nothing beside it."""
    parameters, metadata = load_checkpoint(path)
    assert metadata["step"] == METADATA["step"]
    assert parameters.keys() == PARAMETERS.keys()
    for name, value in PARAMETERS.items():
        np.testing.assert_array_equal(parameters[name], value)
    assert list(path.parent.iterdir()) == [path]


# ---------------------------------------------------------------------------------------------------------------------
# Round trip
# ---------------------------------------------------------------------------------------------------------------------


def test_round_trip(path: Path) -> None:
    parameters, metadata = load_checkpoint(path)
    assert metadata.pop("versions")["numpy"] == np.__version__
    assert metadata == METADATA
    assert rhn.RHNConfig(**metadata["config"]) == rhn.RHNConfig(11, 6, 3, num_layers=2)
    assert_is_old(path)
    assert {value.dtype for value in parameters.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5),
        np.zeros((0, 3)),
        np.arange(12.0).reshape(3, 4).T,
        np.arange(12)[::-2],
        np.array([True, False]),
        np.array([np.nan, np.inf, -0.0], dtype=np.float16),
        np.array([2**64 - 1], dtype=np.uint64),
    ],
    ids=["scalar", "empty", "transposed", "strided", "bool", "float16", "uint64"],
)
def test_any_array_comes_back_as_it_was(tmp_path: Path, array: NDArray) -> None:
    save_checkpoint(tmp_path / "x", {"array": array}, {})
    loaded = load_checkpoint(tmp_path / "x")[0]["array"]
    assert loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array, strict=True)


def test_overwrites_and_accepts_a_plain_string(path: Path) -> None:
    save_checkpoint(str(path), {"a": np.ones(2)}, {"step": 8})
    parameters, metadata = load_checkpoint(str(path))
    assert (list(parameters), metadata["step"]) == (["a"], 8)
    assert list(path.parent.iterdir()) == [path]


def test_is_an_ordinary_file_that_other_tools_can_read(path: Path) -> None:
    plain = path.with_name("plain")
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode
    assert safetensors.numpy.load_file(path).keys() == PARAMETERS.keys()


def test_a_folder_stands_for_the_model_in_it_whose_parameters_may_be_in_float16(tmp_path: Path) -> None:
    half = {name: value.astype(np.float16) for name, value in PARAMETERS.items()}
    save_checkpoint(tmp_path / "model.safetensors", half, METADATA)
    assert {value.dtype for value in load_checkpoint(tmp_path)[0].values()} == {np.dtype(np.float16)}
    saved, config, _ = load_language_model(str(tmp_path))
    for name, value in saved.parameters.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, half[name])
    model = rhn.load_backend("reference").build(config, saved.parameters)
    assert np.isfinite(model.forward(np.array([[1, 2]]))[0]).all()
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"checkpoint .*model.safetensors does not exist"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("value", [{1, 2}, np.float32(1), object()], ids=["set", "numpy", "object"])
def test_metadata_that_is_not_json_is_refused(path: Path, value: object) -> None:
    with pytest.raises(CheckpointError, match=r"metadata of last\.safetensors cannot be stored as JSON"):
        save_checkpoint(path, PARAMETERS, {"value": value})
    circular: dict[str, Any] = {}
    circular["self"] = circular
    with pytest.raises(CheckpointError, match=r"metadata of last\.safetensors cannot be stored as JSON"):
        save_checkpoint(path, PARAMETERS, circular)
    assert_is_old(path)


def test_arrays_that_cannot_be_stored_are_refused(path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"arrays of last\.safetensors cannot be stored"):
        save_checkpoint(path, {"text": np.array(["a"])}, {})
    assert_is_old(path)


# ---------------------------------------------------------------------------------------------------------------------
# Files that are no good
# ---------------------------------------------------------------------------------------------------------------------


def test_a_file_cut_at_any_place_is_called_truncated(path: Path) -> None:
    whole = path.read_bytes()
    header_end = 8 + int.from_bytes(whole[:8], "little")
    cuts = {0, 1, 7, 8, 9, header_end // 2, header_end - 1, header_end, header_end + 1, len(whole) // 2, len(whole) - 1}
    for cut in cuts:
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match="is truncated or not a safetensors file") as caught:
            load_checkpoint(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [bytes(1000), b"\x80\x04pickle" * 99, b'{"json": 1}', os.urandom(1000)], ids=["0", "pickle", "json", "?"]
)
def test_a_file_of_another_kind_is_named_so(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is truncated or not a safetensors file"):
        load_checkpoint(path)


def test_something_behind_the_end_is_noticed(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(CheckpointError, match="is truncated or not a safetensors file"):
        load_checkpoint(path)


def with_header(path: Path, **changes: str | None) -> None:
    """Write a safetensors file whose header is that of a checkpoint, but for `changes`."""
    header = {"format": checkpoint.FORMAT, "format_version": "1", "metadata": "{}", **changes}
    kept = {key: value for key, value in header.items() if value is not None}
    path.write_bytes(safetensors.numpy.save({"a": np.ones(2)}, metadata=kept))


def test_foreign_safetensors_are_named_so(path: Path) -> None:
    for foreign in (None, "pt"):
        with_header(path, format=foreign)
        with pytest.raises(CheckpointError, match="is a safetensors file, but not a checkpoint of recurrent-highway"):
            load_checkpoint(path)
    safetensors.numpy.save_file({"a": np.ones(2)}, path)  # no header at all
    with pytest.raises(CheckpointError, match="is a safetensors file, but not a checkpoint of recurrent-highway"):
        load_checkpoint(path)


def test_foreign_safetensors_with_dtypes_unknown_to_numpy_are_named_so(path: Path) -> None:
    description = json.dumps({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    path.write_bytes(len(description).to_bytes(8, "little") + description + bytes(2))
    with pytest.raises(CheckpointError, match="is a safetensors file, but not a checkpoint of recurrent-highway"):
        load_checkpoint(path)


@pytest.mark.parametrize("version", ["2", "", None])
def test_other_format_versions_are_refused(path: Path, version: str | None) -> None:
    with_header(path, format_version=version)
    with pytest.raises(CheckpointError, match=f"has format version {version}, expected 1"):
        load_checkpoint(path)


@pytest.mark.parametrize("document", ["{", "", None])
def test_metadata_that_is_not_json_is_a_damaged_header(path: Path, document: str | None) -> None:
    with_header(path, metadata=document)
    with pytest.raises(CheckpointError, match="has a damaged header"):
        load_checkpoint(path)


def test_what_is_not_there_does_not_exist(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(CheckpointError, match="does not exist"):
            load_checkpoint(path)


# ---------------------------------------------------------------------------------------------------------------------
# Failures while writing
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if stage == "write":
        open_descriptor = os.fdopen

        def open_on_full_disk(descriptor: int, mode: str) -> Any:
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, descriptor)
            os.close(full)
            return open_descriptor(descriptor, mode)

        monkeypatch.setattr(os, "fdopen", open_on_full_disk)
    elif stage == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left on device"):
        save_checkpoint(path, {"a": np.ones(1000)}, {"step": 8})
    monkeypatch.undo()
    assert_is_old(path)


def test_an_interrupt_leaves_the_old_file_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {"a": np.ones(1000)}, {"step": 8})
    monkeypatch.undo()
    assert_is_old(path)


def test_a_killed_process_leaves_the_old_file(path: Path) -> None:
    program = (
        "import os, signal, sys, numpy, rhn\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "rhn.save_checkpoint(sys.argv[1], {'a': numpy.ones(1000)}, {'step': 8})\n"
    )
    assert subprocess.run([sys.executable, "-c", program, path]).returncode == -9
    [orphan] = set(path.parent.iterdir()) - {path}
    assert orphan.name.startswith(".last.safetensors.")
    orphan.unlink()
    assert_is_old(path)


def test_the_new_file_is_on_disk_before_it_takes_the_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(Path, "replace", lambda self, target: (events.append("replace"), replace(self, target)))
    save_checkpoint(path, {"a": np.ones(2)}, {})
    assert events == ["fsync", "replace", "fsync"]  # file, name, folder


def test_a_folder_that_does_not_exist_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save_checkpoint(tmp_path / "none" / "x", PARAMETERS, {})
