"""The loss of training: its chunks, its gradients, and the memory that it takes."""

from __future__ import annotations

import platform
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from rhn_jax.loss import cross_entropy, softmax_cross_entropy

N, H, V = 12, 3, 7
COUNTS = np.arange(N) < 9


def arguments() -> tuple[Array, Array, Array, Array]:
    """top, weight, bias and targets, in the dtype that is on."""
    draw = np.random.default_rng(0)
    return *(jnp.array(draw.normal(size=size)) for size in ((N, H), (V, H), V)), jnp.array(draw.integers(0, V, N))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("counts", [None, COUNTS], ids=["all", "padded"])
@pytest.mark.parametrize("chunk", [4, N])
def test_loss_and_gradients_are_those_of_plain_operations(monkeypatch, counts, chunk) -> None:
    def plain(top: Array, weight: Array, bias: Array, targets: Array) -> Array:
        nll = cross_entropy(top @ weight.T + bias, targets)
        return (nll if counts is None else nll * counts).sum() / 3

    monkeypatch.setattr("rhn_jax.loss._CHUNK_ROWS", chunk)
    found = jax.value_and_grad(lambda *inputs: softmax_cross_entropy(*inputs, counts) / 3, (0, 1, 2))(*arguments())
    expected = jax.value_and_grad(plain, (0, 1, 2))(*arguments())
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-14)


def test_no_array_holds_the_logits_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rhn_jax.loss._CHUNK_ROWS", 4)
    gradient = jax.grad(lambda *inputs: softmax_cross_entropy(*inputs), (0, 1, 2))
    program = str(jax.make_jaxpr(gradient)(*arguments()))
    assert f"f32[4,{V}]" in program
    assert f"f32[{N},{V}]" not in program


PROGRAM = """
import resource, rhn
config = rhn.RHNConfig(vocab_size=40_000, hidden_size=2, recurrence_depth=1)
model = rhn.load_backend("jax").build(config, rhn.initial_parameters(config, 0), device="cpu")
tokens, state = [[1] * 200] * 2, model.zero_state(2)
faults = []
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    loss, state = model.train_step(tokens, tokens, state, None, 0.1, 0.0, 1.0)
    model.to_numpy(loss)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults))  # the memory that is kept grows during some steps, not only the first
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
@pytest.mark.parametrize(("environment", "fresh"), [({}, False), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, True)], ids=str)
def test_a_step_takes_no_fresh_memory_unless_the_user_has_chosen_otherwise(environment, fresh, monkeypatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    logits_in_pages = 400 * 40_000 * 4 / 4096
    assert (int(result.stdout) > logits_in_pages / 2) == fresh
