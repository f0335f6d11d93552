"""A run does not start on a backend that computes something else than the specification."""

import json
from pathlib import Path
from typing import Any

import pytest

from rhn.preflight import PreflightError
from rhn.training import train as train_command
from rhn.training.options import DEFAULTS
from rhn_conformance.rewritten.mutants import MUTANTS


def train_on_a_broken_backend(
    folder: Path, monkeypatch: pytest.MonkeyPatch, mistake: str = "masked carry", **words: Any
) -> None:
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == mistake)
    monkeypatch.setattr(train_command, "load_backend", lambda name: mutant.backend())
    (folder / "text.txt").write_text("pack my box with five dozen liquor jugs.\n" * 20)
    given = {
        "dataset": "text",
        "data_path": str(folder / "text.txt"),
        "hidden_size": 4,
        "recurrence_depth": 2,
        "batch_size": 2,
        "bptt_length": 5,
        "max_steps": 1,
        "progress": False,
        "runs_path": str(folder / "runs"),
        "run": "broken",
        **words,
    }
    defaults = DEFAULTS
    train_command.train("reference", {**defaults, **given}, given, lambda name, value, step: None)


def test_training_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PreflightError, match=r"case 'first step' .* is .*, expected .*training is refused"):
        train_on_a_broken_backend(tmp_path, monkeypatch)
    assert not (tmp_path / "runs").exists()


def test_who_skips_it_has_it_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_on_a_broken_backend(tmp_path, monkeypatch, preflight=False)
    environment = json.loads((tmp_path / "runs" / "broken" / "environment.json").read_text())
    assert environment["preflight"] == "skipped by preflight=False"


@pytest.mark.parametrize(
    ("mistake", "option"),
    [
        ("update mask on the carry", {"drop_update": 0.1}),
        ("mask of the first time step for all", {"time_masks": True}),
        ("other rows are reset", {"reset_probability": 0.1}),
    ],
)
def test_masks_that_the_paper_does_not_use_are_proven_where_a_run_has_them(
    mistake: str, option: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PreflightError, match=r"\(coupled, tied, shared masks, all masks\): .* training is refused"):
        train_on_a_broken_backend(tmp_path, monkeypatch, mistake, **option)
    train_on_a_broken_backend(tmp_path, monkeypatch, mistake)
    environment = json.loads((tmp_path / "runs" / "broken" / "environment.json").read_text())
    assert environment["preflight"].startswith("preflight: 12 cases")
