"""The three ports in one process: the same training curves, and checkpoints that any of them reads."""

from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch  # noqa: F401  first of the three: the others' libraries must find its OpenMP loaded

import rhn
from rhn.training.evaluate.stream import evaluate_checkpoint
from rhn.training.options import DEFAULTS, pick
from rhn.training.recipes import RECIPES
from rhn.training.train import train
from rhn_datasets import load_corpus, windows

PORTS = ("torch", "tf", "jax")
ADAM = {"optimizer": "adam", "learning_rate": 0.01}  # whose memory a run that goes on needs too

TEXT = "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs.\n" * 40


# Largest relative difference of a loss between two ports. Measured: 1.5e-5 in float32, where rounding grows with every
# step of so high a learning rate.
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-8), ("float32", 1e-4)])
def test_the_first_hundred_steps_of_the_demo_agree(dtype: str, tolerance: float) -> None:
    losses = {port: demo_losses(port, dtype, steps=100) for port in PORTS}
    assert losses["torch"][-1] < 0.8 * losses["torch"][0]  # it does learn meanwhile
    for port in PORTS[1:]:
        np.testing.assert_allclose(losses[port], losses["torch"], rtol=tolerance, atol=0)


def demo_losses(port: str, dtype: str, steps: int) -> list[float]:
    options = {**DEFAULTS, **RECIPES["demo"]}
    corpus = load_corpus(options["dataset"])
    config = pick(rhn.RHNConfig, {**options, "vocab_size": len(corpus.vocabulary)})
    parameters = rhn.initial_parameters(
        config, options["seed"], options["init_scale"], options["transform_bias"], options["other_bias"]
    )
    model = rhn.load_backend(port).build(config, parameters, dtype, "cpu")
    state, losses = model.zero_state(options["batch_size"]), []
    cut = windows(corpus.train, options["batch_size"], options["bptt_length"], drop_last=True)
    for tokens, targets in islice(cut, steps):
        loss, state = model.train_step(
            tokens, targets, state, None, *(options[n] for n in ("learning_rate", "weight_decay", "max_grad_norm"))
        )
        losses.append(float(model.to_numpy(loss)))
    return losses


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trains one epoch in a port and returns the folder of the run; keywords are further options."""
    folder = tmp_path_factory.mktemp("ports")
    (folder / "text.txt").write_text(TEXT)

    def train_in(port: str, **options: Any) -> Path:
        given = {
            "dataset": "text",
            "data_path": str(folder / "text.txt"),
            "hidden_size": 8,
            "recurrence_depth": 2,
            "batch_size": 4,
            "bptt_length": 10,
            "epochs": 1,
            "device": "cpu",
            "progress": False,
            "preflight": False,
            "runs_path": str(folder),
            "run": port,
            **options,
        }
        train(port, {**DEFAULTS, **given}, given, lambda name, value, step: None)
        return folder / given["run"]

    return train_in


@pytest.fixture(scope="module")
def whole_run(run: Callable[..., Path]) -> Callable[[str], Path]:
    """The folder of a run in a port that nothing has stopped; the same one for all tests."""
    return cache(lambda port: run(port, run=f"{port}-whole", **ADAM))


@pytest.mark.parametrize("writer", PORTS)
def test_a_checkpoint_of_one_port_scores_the_same_in_all(writer: str, whole_run: Callable[[str], Path]) -> None:
    given: dict[str, Any] = {"checkpoint": str(whole_run(writer) / "best.safetensors")}
    scores = [evaluate_checkpoint(reader, {**DEFAULTS, **given}, given) for reader in PORTS]
    for part in ("valid", "test"):
        values = [score[part] for score in scores]
        assert max(values) - min(values) < 1e-6 * min(values)  # the same to six digits


# Kills of real processes are in tests/training/test_resume.py.
@pytest.mark.parametrize("port", PORTS)
def test_a_run_that_was_stopped_and_resumed_ends_the_same_bit_for_bit(
    port: str, run: Callable[..., Path], whole_run: Callable[[str], Path]
) -> None:
    whole = whole_run(port)
    parts = run(port, run=f"{port}-parts", max_steps=33, **ADAM)
    for resumed in ({"resume": str(parts)}, {"resume": str(parts), "max_steps": None}):  # the first has no step to take
        train(port, {**DEFAULTS, **resumed}, resumed, lambda name, value, step: None)
    for file in ("last.safetensors", "best.safetensors"):
        (expected, _), (tensors, _) = rhn.load_checkpoint(whole / file), rhn.load_checkpoint(parts / file)
        assert tensors.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(tensors[name], expected[name], strict=True)
