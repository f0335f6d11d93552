"""A folder that `export_hub` has written, in all ports: the code on its card runs, and the scores are equal."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: F401  first of the three: the others' libraries must find its OpenMP loaded

import rhn
from rhn.training.evaluate.export_hub import export_hub
from rhn.training.evaluate.stream import evaluate_checkpoint
from rhn.training.options import DEFAULTS
from rhn_datasets import load_corpus

PORTS = ("torch", "tf", "jax")
TEXT = "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs.\n" * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of characters that was never trained, in float16; `text.txt` is beside it."""
    place = tmp_path_factory.mktemp("exported")
    (place / "text.txt").write_text(TEXT)
    vocabulary = load_corpus("text", str(place / "text.txt")).vocabulary
    config = rhn.RHNConfig(len(vocabulary), hidden_size=8, recurrence_depth=2, num_layers=2)
    metadata = {"config": config.to_dict(), "vocabulary": vocabulary.to_json(), "options": {"dataset": "text"}}
    parameters = rhn.initial_parameters(config, seed=1, init_scale=0.5)
    rhn.save_checkpoint(place / "best.safetensors", parameters, metadata)
    options = {"checkpoint": str(place / "best.safetensors"), "folder": str(place / "model"), "stored_dtype": "float16"}
    export_hub("torch", {**DEFAULTS, **options}, options)
    return place / "model"


def test_the_code_on_the_card_runs_and_draws_the_same_text_in_all_ports(folder: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    texts = []
    for port in PORTS:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code.replace("rhn_torch", f"rhn_{port}").replace("FOLDER", str(folder)), {})
        texts.append(printed.getvalue())
    assert len(texts[0]) == 200 + len("\n")
    assert texts[1:] == texts[:1] * 2


# Relative. Measured: 5e-8 in float32.
def test_all_ports_give_it_the_same_score(folder: Path) -> None:
    given: dict[str, Any] = {"checkpoint": str(folder), "data_path": str(folder.parent / "text.txt"), "progress": False}
    scores = [evaluate_checkpoint(name, {**DEFAULTS, **given}, given) for name in ("reference", *PORTS)]
    for score in scores[1:]:
        assert score == pytest.approx(scores[0], rel=5e-7)
