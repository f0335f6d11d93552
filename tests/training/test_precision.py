"""In which precision a model is trained, and in which it is scored."""

import json
from pathlib import Path
from typing import Any

import pytest

from rhn.reference_backend import ReferenceBackend
from rhn.training import train as train_command
from rhn.training.evaluate.stream import evaluate_checkpoint
from rhn.training.options import DEFAULTS


class Watched(ReferenceBackend):
    """Pretends to have a device, and notes in which precision its models are built."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.precisions: list[str] = []

    def build(self, *args: Any, **options: Any) -> Any:
        self.precisions.append(options["precision"])
        return super().build(*args, **options)

    def describe(self) -> dict[str, str]:
        return {"device": self.device}


@pytest.mark.parametrize(
    ("device", "words", "trained", "scored"),
    [
        ("cpu", {}, "float32", "float32"),
        ("NVIDIA H200", {}, "tf32", "float32"),
        ("NVIDIA H200", {"dtype": "float64"}, "float32", "float32"),
        ("NVIDIA H200", {"device": "cpu"}, "float32", "float32"),
        ("NVIDIA H200", {"precision": "float32"}, "float32", "float32"),
        ("NVIDIA H200", {"precision": "bf16"}, "bf16", "bf16"),
    ],
)
def test_a_gpu_trains_in_tf32_and_scores_in_float32(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    device: str,
    words: dict[str, str],
    trained: str,
    scored: str,
) -> None:
    backend = Watched(device)
    monkeypatch.setattr(train_command, "load_backend", lambda name: backend)
    monkeypatch.setattr("rhn.training.run.checkpoint.load_backend", lambda name: backend)
    (tmp_path / "text.txt").write_text("pack my box with five dozen liquor jugs.\n" * 20)
    given = {
        "dataset": "text",
        "data_path": str(tmp_path / "text.txt"),
        "hidden_size": 4,
        "recurrence_depth": 1,
        "batch_size": 4,
        "bptt_length": 10,
        "epochs": 1,
        "progress": False,
        "runs_path": str(tmp_path),
        "run": "run",
        **words,
    }
    defaults = DEFAULTS
    train_command.train("reference", {**defaults, **given}, given, lambda name, value, step: None)
    assert backend.precisions == [trained, trained, scored]  # the run's model, the preflight's, that of the best epoch
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["precision"] == trained
    assert (f"products in {trained}" in capsys.readouterr().out) == (trained != "float32")

    given = {"checkpoint": str(tmp_path / "run" / "best.safetensors")}
    evaluate_checkpoint("reference", {**defaults, **given}, given)
    assert backend.precisions[-1] == scored
