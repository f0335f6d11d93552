"""`import rhn` is light: it needs NumPy and safetensors, and brings in nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

CORE = ["rhn", "rhn.backend", "rhn.reference_backend", "rhn.spec.reference", "rhn.checkpoint"]
# Everything outside of the standard library that the core may import.
ALLOWED = ["rhn", "numpy", "safetensors"]


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("module", CORE)
def test_loads_no_framework_and_no_training_tools(module: str) -> None:
    heavy = ["torch", "tensorflow", "keras", "jax", "flax", "sacred", "matplotlib", "requests", "tqdm", "rhn.training"]
    program = f"import sys, {module}; print(sorted(set({heavy}) & set(sys.modules)))"
    assert run(program) == "[]\n"


def test_needs_numpy_and_safetensors_alone() -> None:
    """With every other package hidden, the core works: parameters, masks, a training step."""
    program = f"""
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in {ALLOWED}:
            raise ModuleNotFoundError(f"{{name}} is hidden", name=top)

sys.meta_path.insert(0, Hide())
import rhn
config = rhn.RHNConfig(11, 6, 2)
model = rhn.load_backend("reference").build(config, rhn.initial_parameters(config, seed=1))
tokens = [[1, 2, 3]]
masks = rhn.sample_masks(config, tokens, (0.1, 0.2, 0.3, 0.4), seed=1, step=0)
model.train_step(tokens, tokens, model.zero_state(1), masks, 0.2, 1e-7, 10.0)
print(model.parameter_count)
"""
    assert run(program) == "317\n"
