"""A run that was cut off anywhere and resumed ends like one that was not: bit for bit."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rhn
from rhn.processes import ProcessLostError
from rhn.training import loop
from rhn.training.command_line import run as run_command
from rhn.training.options import DEFAULTS, OptionError, Options
from rhn.training.run.folder import RunFolder, check_unused
from rhn.training.train import train as train_model

TEXT = "pack my box with five dozen liquor jugs.\n" * 20
OPTIONS = [
    "dataset=text",
    "data_path=text.txt",
    "hidden_size=5",
    "recurrence_depth=2",
    "batch_size=2",
    "bptt_length=5",
    "embedding_size=4",
    "drop_update=0.2",
    "time_masks=True",
    "reset_probability=0.3",
    "dtype=float64",  # the reference keeps float64 inside, so only this is all of its state
    "progress=False",
    "schedule=plateau",
    "checkpoint_minutes=1e-9",
]


Train = Callable[..., str]


def start(folder: Path, *words: str) -> BaseProcess:
    """The training command in a process of its own, which starts with everything imported."""

    def command() -> None:
        os.chdir(folder)
        run_command("reference", ["with", *words])

    process = multiprocessing.get_context("fork").Process(target=command)
    process.start()
    return process


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Train:
    """Runs the training command to its end, and gives what it printed."""

    def train_here(folder: Path, *words: str) -> str:
        monkeypatch.chdir(folder)
        run_command("reference", ["with", *words])
        return capsys.readouterr().out

    return train_here


@pytest.fixture
def refusal(train: Train) -> Train:
    """Runs the training command, which must refuse its options, and gives its sentence."""

    def refused(folder: Path, *words: str) -> str:
        with pytest.raises(SystemExit) as end:
            train(folder, *words)
        assert isinstance(end.value.code, str)  # Python prints it, and the exit status is 1
        return end.value.code

    return refused


def assert_same_end(folder: Path, a: str, b: str) -> None:
    for file in ("last.safetensors", "best.safetensors"):
        (ours, our_metadata), (theirs, their_metadata) = (
            rhn.load_checkpoint(folder / "runs" / name / file) for name in (a, b)
        )
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], strict=True)
        for metadata in (our_metadata, their_metadata):
            for row in metadata["progress"]["history"]:
                for time_of_the_machine in ("seconds", "waiting_seconds", "tokens_per_second"):
                    del row[time_of_the_machine]  # the only things that may differ
        assert our_metadata["progress"]["history"] == their_metadata["progress"]["history"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resume")
    (path / "text.txt").write_text(TEXT)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "adam", "learning_rate": 0.01},
        {"average_after": 1, "learning_rate": 0.5},
        {"drop_state": 0.5},
        {"evaluate_steps": 30, "schedule": "plateau", "average_after": 1, "momentum": 0.8, "learning_rate": 0.02},
        {"bptt_jitter": 2.0, "activation_regularization": 2.0, "drop_embedding": 0.3, "time_masks": True},
    ],
    ids=["sgd", "adam", "averaging", "dropout", "checks", "lengths"],
)
def test_stopping_by_max_steps_and_resuming_changes_nothing(tmp_path: Path, options: dict[str, Any]) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    defaults = DEFAULTS
    given = {
        "dataset": "text",
        "data_path": str(tmp_path / "text.txt"),
        "hidden_size": 5,
        "recurrence_depth": 2,
        "batch_size": 2,
        "bptt_length": 5,
        "epochs": 4,
        "dtype": "float64",
        "progress": False,
        "runs_path": str(tmp_path / "runs"),
        **options,
    }

    def run(**words: Any) -> float | None:
        return train_model("reference", {**defaults, **words}, words, lambda name, value, step: None)

    parts = str(tmp_path / "runs" / "parts")
    assert run(**given, run="whole") is not None
    assert run(**given, run="parts", max_steps=37) is None
    assert run(resume=parts, max_steps=191) is None
    assert run(resume=parts, max_steps=None) is not None
    assert_same_end(tmp_path, "whole", "parts")


def test_killed_at_random_moments_and_resumed(folder: Path, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least 20 kills; most fall into training or into a checkpoint's write, which here follows every step."""
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_READINGS", 0.0)
    train(folder, *OPTIONS, "epochs=8", "drop_h=0.25", "run=whole")
    moments = random.Random(1)
    process = start(folder, *OPTIONS, "epochs=8", "drop_h=0.25", "run=killed")
    run_folder = folder / "runs" / "killed"
    kills = 0
    while kills < 20:
        _wait_for_a_new_checkpoint(run_folder, process)
        time.sleep(moments.uniform(0.0, 0.08))
        if process.exitcode is not None:
            break  # finished: too late for a kill
        process.kill()
        process.join()
        kills += 1
        process = start(folder, "resume=runs/killed")
    process.join(timeout=120)
    assert process.exitcode == 0
    assert kills == 20
    assert_same_end(folder, "whole", "killed")


def _wait_for_a_new_checkpoint(run_folder: Path, process: BaseProcess) -> None:
    path = run_folder / "last.safetensors"
    before = path.stat().st_mtime_ns if path.exists() else 0
    while process.exitcode is None and not (path.exists() and path.stat().st_mtime_ns != before):
        time.sleep(0.005)


def test_resuming_can_lift_what_stopped_the_run(folder: Path, train: Train) -> None:
    """Also by giving an option its default, which is not the run's."""
    assert "max_steps=20: stopped" in train(folder, *OPTIONS, "epochs=2", "max_steps=20", "run=limited")
    assert "max_steps=20: stopped at step 20" in train(folder, "resume=runs/limited")
    assert "best epoch" in train(folder, "resume=runs/limited", "max_steps=None")


def test_checks_within_an_epoch(folder: Path, train: Train) -> None:
    """Every 50 steps, whatever the epoch, and after the last step; patience counts them."""
    train(folder, *OPTIONS, "epochs=2", "evaluate_steps=50", "run=checks")
    rows = [json.loads(line) for line in (folder / "runs" / "checks" / "metrics.jsonl").read_text().splitlines()]
    steps_of_an_epoch = rows[-1]["step"] // 2
    assert [row["step"] for row in rows] == [50, 100, 2 * steps_of_an_epoch]
    assert [row["epoch"] for row in rows] == [1, 2, 2]
    assert [row["epochs_done"] for row in rows] == [50 / steps_of_an_epoch, 100 / steps_of_an_epoch, 2.0]
    words = ["epochs=50", "evaluate_steps=20", "patience=2", "learning_rate=1e-300", "run=early_checks"]
    train(folder, *OPTIONS, *words)
    rows = [json.loads(line) for line in (folder / "runs" / "early_checks" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [20, 40, 60]
    assert "best epoch" in (folder / "runs" / "early_checks" / "report.html").read_text()


def test_early_stopping(folder: Path, train: Train) -> None:
    out = train(folder, *OPTIONS, "epochs=50", "patience=2", "learning_rate=1e-300", "run=early")
    assert "epoch 3/50" in out  # the first epoch is the best, and two more bring nothing
    assert "epoch 4/50" not in out


def test_max_minutes(folder: Path, train: Train) -> None:
    out = train(folder, *OPTIONS, "epochs=100000", "max_minutes=0.01", "run=minutes")
    assert "max_minutes=0.01: stopped at step" in out


def test_after_a_loss_a_launchers_signal_does_not_come_before_the_sentence(
    tmp_path: Path, refusal: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(self: loop.Trainer) -> None:
        raise ProcessLostError

    monkeypatch.setattr(loop.Trainer, "train", lose)
    (tmp_path / "text.txt").write_text(TEXT)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert "has ended, so this one ends too; continue with resume=runs/lost" in refusal(
            tmp_path, *OPTIONS, "run=lost"
        )
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_resume_needs_a_run(folder: Path, refusal: Train) -> None:
    err = refusal(folder, "resume=nowhere")
    assert "resume='nowhere' is not accepted: expected the folder of a run" in err


@pytest.fixture(scope="module")
def stopped(folder: Path) -> Path:
    """A run that was stopped in its first epoch."""
    process = start(folder, *OPTIONS, "run=stopped", "max_steps=5", "epochs=2")
    process.join(timeout=60)
    assert process.exitcode == 0
    return folder / "runs" / "stopped"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("activation=relu", "activation='relu' (it was 'tanh') is not accepted with resume"),
        ("seed=2", "seed=2 (it was 1) is not accepted with resume"),
        ("bptt_length=6", "bptt_length=6 (it was 5) is not accepted with resume"),
        ("level=byte", "level='byte' (it was None) is not accepted with resume"),
        ("run=other", "run='other' is not accepted with resume"),
    ],
)
def test_another_run_is_no_resumption(folder: Path, stopped: Path, word: str, message: str, refusal: Train) -> None:
    err = refusal(folder, "resume=runs/stopped", word)
    assert message in err


@pytest.mark.parametrize("text", [TEXT[::-1], TEXT.replace("e", "é")], ids=["reversed", "other symbols"])
def test_other_data_are_no_resumption(folder: Path, stopped: Path, text: str, refusal: Train) -> None:
    (folder / "text.txt").write_text(text)
    try:
        err = refusal(folder, "resume=runs/stopped")
    finally:
        (folder / "text.txt").write_text(TEXT)
    assert "was trained on other" in err


def test_changed_options_are_kept_and_recorded(tmp_path: Path, train: Train) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    train(tmp_path, *OPTIONS, "run=r", "max_steps=5", "epochs=1")
    train(tmp_path, "resume=runs/r", "learning_rate=0.05", "max_steps=9")
    options = json.loads((tmp_path / "runs" / "r" / "options.json").read_text())
    assert (options["learning_rate"], options["max_steps"]) == (0.05, 9)
    changes = json.loads((tmp_path / "runs" / "r" / "changes.json").read_text())
    assert {"step": 5, "option": "learning_rate", "before": 0.2, "after": 0.05} in changes
    train(tmp_path, "resume=runs/r", "max_steps=None")
    metadata = rhn.load_checkpoint(tmp_path / "runs" / "r" / "last.safetensors")[1]
    assert metadata["options"]["learning_rate"] == 0.05  # not forgotten
    assert "learning_rate" in (tmp_path / "runs" / "r" / "report.html").read_text()


def test_a_folder_has_one_writer(folder: Path, stopped: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with RunFolder(stopped).locked():
        process = start(folder, "resume=runs/stopped")
        process.join(timeout=60)
    assert process.exitcode == 1
    assert "is in use: another process trains there" in capfd.readouterr().err


@pytest.mark.parametrize("content", ["", "{", "[]", '{"hidden_size": "x"}'])
def test_damaged_options_get_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "options.json").write_text(content)
    with pytest.raises(OptionError, match=r"options\.json is damaged"):
        RunFolder(tmp_path / "r").read_options()


def test_a_damaged_checkpoint_says_what_can_be_done(
    folder: Path, stopped: Path, tmp_path: Path, refusal: Train
) -> None:
    shutil.copytree(stopped, tmp_path / "r")
    (tmp_path / "r" / "last.safetensors").write_bytes(b"")
    err = refusal(folder, f"resume={tmp_path / 'r'}")
    assert f"remove {tmp_path / 'r' / 'last.safetensors'} to start the run again" in err


def test_the_reference_resumes_in_float32_too(tmp_path: Path, train: Train) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    options = [word for word in OPTIONS if not word.startswith("dtype")]
    train(tmp_path, *options, "run=whole", "epochs=2")
    train(tmp_path, *options, "run=cut", "max_steps=7", "epochs=2")
    train(tmp_path, "resume=runs/cut", "max_steps=None")
    assert_same_end(tmp_path, "whole", "cut")


def test_a_run_is_continued_from_any_folder(tmp_path: Path, train: Train) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "elsewhere").mkdir()
    train(tmp_path, *OPTIONS, "run=r", "epochs=1", "max_steps=3")
    train(tmp_path / "elsewhere", "resume=../runs/r", "max_steps=5")


def test_a_folder_that_was_trained_in_meanwhile_is_not_trained_in_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    check_unused(folder, Options())
    folder.last.touch()
    with pytest.raises(OptionError, match="is not empty"):
        check_unused(folder, Options())


@pytest.mark.parametrize(
    "change", [{"window": 10**6, "step": 10**6}, {"history": [{}]}, {"epoch": 1}, {"loss_sum": "a"}, {"more": 1}]
)
def test_a_place_that_is_none_is_refused(
    folder: Path, stopped: Path, tmp_path: Path, change: dict[str, Any], refusal: Train
) -> None:
    shutil.copytree(stopped, tmp_path / "r")
    file = tmp_path / "r" / "last.safetensors"
    arrays, metadata = rhn.load_checkpoint(file)
    rhn.save_checkpoint(file, arrays, {**metadata, "progress": {**metadata["progress"], **change}})
    err = refusal(folder, f"resume={tmp_path / 'r'}")
    assert err.startswith(f"error: {file} ")
    assert "\n" not in err
