"""What importing rhn_tf loads, and what it says where Keras is configured for another backend."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    return subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, check=False
    )


def test_import_loads_neither_other_frameworks_nor_tools_of_training() -> None:
    # Keras itself looks for JAX, so what counts is what comes on top of it.
    code = """
import sys, keras, tensorflow
before = set(sys.modules)
import rhn_tf.backend, rhn_tf.convert
print(sorted({"torch", "jax", "flax", "sacred", "rhn_datasets"} & (set(sys.modules) - before)), "torch" in sys.modules)
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "[] False\n"


@pytest.mark.parametrize("place", ["KERAS_BACKEND", "keras.json"])
def test_import_refuses_another_keras_backend(place: str, tmp_path: Path) -> None:
    # KERAS_HOME moves keras.json away from the home directory.
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax" if place == "keras.json" else "tensorflow"}))
    environment = {"KERAS_HOME": str(tmp_path)} | ({"KERAS_BACKEND": "jax"} if place == "KERAS_BACKEND" else {})
    result = run_python("import rhn_tf", **environment)
    last_line = result.stderr.strip().splitlines()[-1]
    assert last_line.startswith("ImportError: rhn_tf needs Keras on TensorFlow, but Keras is configured for 'jax': set")
    assert "KERAS_BACKEND=tensorflow" in last_line


def test_the_command_line_shows_none_of_tensorflows_own_lines() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-m", "rhn_tf.train", "print_config"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "hidden_size = 830" in result.stdout
    assert result.stderr == ""
