"""Every script of examples/ runs as a reader would run it, and keeps what it promises."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import rhn
from rhn_datasets import Vocabulary

EXAMPLES = Path(__file__).parents[2] / "examples"
PORTS = ("torch", "tf", "jax")


def output_of(script: str, *words: str) -> str:
    """What `python examples/SCRIPT WORDS` prints."""
    command = [sys.executable, EXAMPLES / script, *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers_after(label: str, text: str) -> list[float]:
    return [float(number) for number in re.findall(rf"{label}:? ([\d.e+-]+)", text)]


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    """An untrained model of characters: the examples draw from it as from a trained one."""
    vocabulary = Vocabulary(tuple("\n TScehnorstu."), "char")
    config = rhn.RHNConfig(len(vocabulary), hidden_size=16, recurrence_depth=2, num_layers=2)
    path = tmp_path / "best.safetensors"
    metadata = {"config": config.to_dict(), "vocabulary": vocabulary.to_json()}
    rhn.save_checkpoint(path, rhn.initial_parameters(config, seed=1), metadata)
    return str(path)


@pytest.mark.parametrize("port", PORTS)
def test_the_classifier_learns(port: str) -> None:
    (accuracy,) = numbers_after("accuracy on new sequences", output_of(f"classify_{port}.py"))
    assert accuracy > 0.95


@pytest.mark.parametrize("port", PORTS)
def test_text_is_generated_from_a_checkpoint(port: str, checkpoint: str) -> None:
    text = output_of(f"generate_{port}.py", checkpoint, "The r")
    assert text.startswith("The r")
    assert len(text) == len("The r") + 200 + len("\n")


def test_a_layer_moves_to_a_saved_model_and_to_onnx(tmp_path: Path) -> None:
    text = output_of("move_a_layer.py", str(tmp_path))
    differences = numbers_after("largest difference from PyTorch", text)
    assert differences
    assert max(differences) < 1e-6
    if "ONNX: skipped" in text:
        pytest.skip(text[text.index("ONNX: skipped") :].strip())
    assert len(differences) == 2
    assert (tmp_path / "rhn.onnx").exists()


def test_the_naive_network_computes_the_same() -> None:
    differences = numbers_after("largest difference", output_of("naive_rhn.py"))
    assert len(differences) == 2
    assert max(differences) < 1e-6
