"""The trained model of this repository, `trained_models/shakespeare`, in all ports."""

from pathlib import Path

import pytest
import torch  # noqa: F401  first of the three: the others' libraries must find its OpenMP loaded

import rhn
from rhn.checkpoint import load_language_model
from rhn.training.evaluate.stream import evaluate
from rhn_datasets import Vocabulary

ROOT = Path(__file__).parents[2]
NATS = 1.24999100  # per character of the excerpt
TEXT = (ROOT / "tests" / "data" / "shakespeare_excerpt.txt").read_text()  # from the part that was not trained on


# Relative. Measured: 2e-9.
@pytest.mark.parametrize("name", ["reference", "torch", "tf", "jax"])
def test_every_port_gives_it_the_same_score(name: str) -> None:
    checkpoint, config, metadata = load_language_model(ROOT / "trained_models" / "shakespeare")
    tokens = Vocabulary.from_json(metadata["vocabulary"]).encode(TEXT)
    model = rhn.load_backend(name).build(config, checkpoint.parameters, "float32")
    assert evaluate(model, tokens, "char").nats == pytest.approx(NATS, rel=1e-6)
