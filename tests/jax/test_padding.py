"""Sequences of different lengths: `seq_lengths`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import Array
from layers_jax import LENGTHS, B, H, T, assert_close, data, make_layer, run

from rhn_jax import RHN

VALID = np.arange(T)[:, None] < LENGTHS[:, None, None]  # (B, T, 1)


@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"bidirectional": True}], ids=str)
@pytest.mark.parametrize("recurrence", ["fast", "recompute", "plain"])
def test_a_sequence_is_computed_as_if_it_were_alone(options: dict[str, Any], recurrence: str) -> None:
    layer = make_layer(num_layers=2, keep_order=True, return_carry=True, recurrence=recurrence, **options)
    x, start = data(), [data(B, H) + i for i in range(len(layer.cells))]
    carry, outputs = layer(x, initial_carry=start, seq_lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        alone, expected = layer(x[row, :length], initial_carry=[s[row] for s in start])
        assert_close([c[row] for c in carry], alone)
        assert_close(outputs[row, :length], expected)
        assert not outputs[row, length:].any()


@pytest.mark.parametrize("recurrence", ["fast", "recompute", "plain"])
@pytest.mark.parametrize("junk", [1e6, np.inf, np.nan])
def test_nothing_depends_on_the_padding(junk: float, recurrence: str) -> None:
    layer = make_layer(num_layers=2, bidirectional=True, return_carry=True, recurrence=recurrence)
    x = data()

    def loss(layer: RHN, x: Array) -> tuple[Array, Any]:
        results = layer(x, seq_lengths=LENGTHS)
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(results)), results

    differentiate = nnx.jit(nnx.grad(loss, argnums=(0, 1), has_aux=True))
    (gradients, d_x), results = differentiate(layer, np.where(VALID, x, junk))
    expected = differentiate(layer, np.where(VALID, x, 0))
    for leaf, expected_leaf in zip(jax.tree.leaves((gradients, d_x, results)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(leaf, expected_leaf)
    assert not np.where(VALID, 0, d_x).any()


def test_lengths_that_are_known_while_the_rest_is_traced() -> None:
    layer, x, lengths = make_layer(), data(), jnp.asarray(LENGTHS)
    assert_close(nnx.jit(lambda layer, x: layer(x, seq_lengths=lengths))(layer, x), run(layer, x, seq_lengths=LENGTHS))


def test_full_lengths_are_no_lengths() -> None:
    layer, x = make_layer(return_carry=True), data()
    assert_close(run(layer, x, seq_lengths=np.full(B, T)), run(layer, x))


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, 2, 3, T + 1], "seq_lengths from 1 to 6 is not accepted: expected integers from 0 to 5"),
        ([1, 2, 3, -1], "seq_lengths from -1 to 3 is not accepted"),
        ([1, 2], r"seq_lengths of shape \(2,\) and dtype int64 is not accepted: .* of shape \(4,\)"),
        (np.ones(B), "dtype float64 is not accepted: expected one integer per sequence"),
    ],
)
def test_lengths_that_do_not_fit(lengths: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_layer()(data(), seq_lengths=lengths)
    with pytest.raises(ValueError, match=message):  # known while a function of the rest is traced
        jax.jit(lambda x: make_layer()(x, seq_lengths=lengths))(data())


def test_a_classifier_of_padded_sequences_learns() -> None:
    """The class is the pair of a sequence's first and last symbol; random symbols follow as padding."""
    generator = np.random.default_rng(0)
    size, length, symbols = 512, 12, 4
    tokens, lengths = generator.integers(0, symbols, (size, length)), generator.integers(2, length + 1, size)
    classes = tokens[:, 0] * symbols + tokens[np.arange(size), lengths - 1]

    class Classifier(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.embedding = nnx.Embed(symbols, 16, rngs=rngs)
            self.rhn = RHN(16, 32, 2, bidirectional=True, return_carry=True, drop_input=0.1, drop_state=0.1, rngs=rngs)
            self.readout = nnx.Linear(64, symbols * symbols, rngs=rngs)

        def __call__(self, tokens: Array, lengths: Array) -> Array:
            carry, _ = self.rhn(self.embedding(tokens), seq_lengths=lengths)
            return self.readout(jnp.concatenate(carry, axis=-1))

    @nnx.jit
    def create() -> tuple[Classifier, nnx.Optimizer]:
        model = Classifier(nnx.Rngs(0))
        return model, nnx.Optimizer(model, optax.adam(0.02), wrt=nnx.Param)

    @nnx.jit
    def step(model: Classifier, optimizer: nnx.Optimizer, rows: Array) -> None:
        def loss(model: Classifier) -> Array:
            logits = model(jnp.asarray(tokens)[rows], jnp.asarray(lengths)[rows])
            return optax.losses.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(classes)[rows]).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    model, optimizer = create()
    for _ in range(150):
        step(model, optimizer, generator.integers(0, 384, 64))
    model.eval()
    predicted = np.argmax(run(model, tokens[384:], lengths[384:]), axis=-1)  # of sequences that it never saw
    assert (predicted == classes[384:]).mean() > 0.95
