"""What a checkpoint says of where its run stands: what was saved comes back, everything else is refused."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rhn
from rhn.checkpoint import CheckpointError, load_language_model
from rhn.training.options import OptionError
from rhn.training.options.plan import Plan
from rhn.training.run.checkpoint import TrainedModel, open_checkpoint
from rhn.training.run.progress import Progress
from rhn.training.run.start import _check_place

ROW = {
    "epoch": 1,
    "step": 7,
    "learning_rate": 0.2,
    "train_nats": 3.0,
    "valid_nats": 2.0,
    "test_nats": float("inf"),
    "gradient_norm": 1.5,
    "tokens_per_second": 100.0,
    "seconds": 1.0,
    "waiting_seconds": 0.0,
}
SAVED = asdict(Progress(epoch=1, window=2, step=9, loss_sum=3.0, history=[ROW]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def test_what_was_saved_comes_back() -> None:
    assert asdict(Progress.from_json(json.loads(json.dumps(SAVED)))) == SAVED


@given(JSON)
def test_nothing_else_is_a_progress(values: Any) -> None:
    with pytest.raises(ValueError, match="progress"):
        Progress.from_json(values)


@given(st.sampled_from(sorted(SAVED)), JSON)
def test_an_entry_of_another_kind_is_refused_or_as_good(name: str, value: Any) -> None:
    try:
        progress = Progress.from_json({**SAVED, name: value})
    except ValueError:
        return
    assert progress.step >= progress.window >= 0
    assert all(row["epoch"] <= progress.epoch + 1 and row["step"] <= progress.step for row in progress.history)


@given(st.sampled_from(sorted(ROW)), JSON)
def test_a_row_with_an_entry_of_another_kind_is_refused_or_can_be_shown(name: str, value: Any) -> None:
    try:
        progress = Progress.from_json({**SAVED, "history": [{**ROW, name: value}]})
    except ValueError:
        return
    assert all(isinstance(nats, int | float) for nats in progress.valid_scores)


@given(st.dictionaries(st.sampled_from(["backend", "config", "options", "vocabulary", "progress"]), JSON))
@settings(max_examples=200)
def test_whatever_the_metadata_say_there_is_a_model_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    rhn.save_checkpoint(path, rhn.initial_parameters(rhn.RHNConfig(2, 3, 1), 1), metadata)
    for read in (load_language_model, TrainedModel.read):
        with pytest.raises(rhn.CheckpointError):
            read(path)


@pytest.mark.parametrize("changed", [b"\x01", b"\x80"])
def test_no_changed_byte_loads_as_another_model(tmp_path: Path, changed: bytes) -> None:
    path = tmp_path / "model.safetensors"
    parameters = rhn.initial_parameters(rhn.RHNConfig(2, 2, 1), 1)
    rhn.save_checkpoint(path, parameters, {"step": 7})
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ changed[0]]) + content[place + 1 :])
        try:
            loaded, metadata = rhn.load_checkpoint(path)
        except rhn.CheckpointError:
            continue
        assert metadata["step"] == 7
        for name, value in parameters.items():
            np.testing.assert_array_equal(loaded[name], value, strict=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state.0", np.zeros((2, 5))),
        ("state.0", np.zeros((2, 4), np.complex64)),
        ("state.1", np.zeros((2, 4))),
        ("optimizer.step", np.array(-1)),
        ("optimizer.step", np.array(1)),
        ("optimizer.averaged_steps", np.array([1])),
        ("optimizer.mean.embedding", np.zeros((2, 2))),
        ("optimizer.other", np.zeros(2)),
    ],
)
def test_a_training_state_of_another_model_is_refused(
    checkpoint: Path, tmp_path: Path, name: str, value: np.ndarray
) -> None:
    parameters, metadata = rhn.load_checkpoint(checkpoint)
    more = {"state.0": np.zeros((3, 4))} if name == "state.1" else {}
    rhn.save_checkpoint(tmp_path / "bad.safetensors", {**parameters, **more, name: value}, metadata)
    with pytest.raises(rhn.CheckpointError):
        load_language_model(tmp_path / "bad.safetensors")


@pytest.mark.parametrize("path", [5, None, "a\0b", "x" * 5000, b"\xff", ".", "/dev/null"])
def test_no_file_is_one_sentence(path: Any) -> None:
    with pytest.raises(rhn.CheckpointError) as refused:
        rhn.load_checkpoint(path)
    assert "\n" not in str(refused.value)


def test_a_checkpoint_without_data_does_not_guess_them(checkpoint: Path, tmp_path: Path) -> None:
    from rhn.training.options import DEFAULTS

    parameters, metadata = rhn.load_checkpoint(checkpoint)
    del metadata["options"]
    bare = str(tmp_path / "bare.safetensors")
    rhn.save_checkpoint(bare, parameters, metadata)
    opened = open_checkpoint("reference", {**DEFAULTS, "checkpoint": bare}, {"checkpoint": bare})
    with pytest.raises(OptionError, match="does not say on which data it was trained"):
        opened.load_corpus()


def test_a_run_without_checks_between_epochs_has_one_row_for_each() -> None:
    checkpoint, corpus = SimpleNamespace(state=[]), SimpleNamespace(train=np.zeros(10_000, np.int64))
    progress = Progress(epoch=2, step=9, history=[ROW])
    with pytest.raises(CheckpointError, match="last does not fit its run: 1 checks for 2 epochs"):
        _check_place(progress, checkpoint, corpus, Plan.from_options({}), Path("last"))
    _check_place(progress, checkpoint, corpus, Plan.from_options({"evaluate_steps": 5}), Path("last"))
