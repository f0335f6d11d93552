from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rhn
from rhn.training.options import DEFAULTS
from rhn_datasets import load_corpus

TEXT = "the quick brown fox jumps over the lazy dog; pack my box.\n" * 12

Command = Callable[[str, dict[str, Any], dict[str, Any]], Any]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A model of characters that was never trained, with lively weights, as a run would have saved it."""
    (tmp_path / "text.txt").write_text(TEXT)
    vocabulary = load_corpus("text", str(tmp_path / "text.txt")).vocabulary
    config = rhn.RHNConfig(vocab_size=len(vocabulary), hidden_size=4, recurrence_depth=2, embedding_size=3)
    options = {"dataset": "text", "data_path": str(tmp_path / "text.txt"), "dtype": "float64", "progress": False}
    rhn.save_checkpoint(
        tmp_path / "model.safetensors",
        rhn.initial_parameters(config, seed=3, init_scale=0.7, transform_bias=-1.0),
        {
            "backend": "reference",
            "config": config.to_dict(),
            "options": options,
            "vocabulary": vocabulary.to_json(),
        },
    )
    return tmp_path / "model.safetensors"


@pytest.fixture
def call(checkpoint: Path) -> Callable[..., Any]:
    """Calls a command as its command line would, on `checkpoint`, with the options given."""
    defaults = DEFAULTS

    def call_command(command: Command, **words: Any) -> Any:
        given = {"checkpoint": str(checkpoint), **words}
        return command("reference", {**defaults, **given}, given)

    return call_command
