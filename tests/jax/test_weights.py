"""Tensors of the specification to and from a cell, and masks."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rhn
from rhn_jax import RHNCell
from rhn_jax.weights import from_spec, mask_tensors, to_spec


@pytest.mark.parametrize("couple_gates", [True, False])
def test_a_cells_tensors_round_trip_bit_for_bit(couple_gates: bool) -> None:
    gates = 2 if couple_gates else 3
    cell = nnx.eval_shape(lambda: RHNCell(5, 4, 3, couple_gates=couple_gates, rngs=nnx.Rngs(0)))
    shapes = {"input_weight": (gates, 5, 4), "recurrent_weight": (3, gates, 4, 4), "bias": (3, gates, 4)}
    generator = np.random.default_rng(0)
    tensors = {name: generator.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    from_spec(cell, tensors)
    for gate in range(gates):
        columns = slice(4 * gate, 4 * gate + 4)
        np.testing.assert_array_equal(cell.input_weight[:, columns], tensors["input_weight"][gate])
        np.testing.assert_array_equal(cell.recurrent_weights[1][:, columns], tensors["recurrent_weight"][1, gate])
        np.testing.assert_array_equal(cell.bias[2, columns], tensors["bias"][2, gate])
    exported = to_spec(cell)
    assert list(exported) == list(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(exported[name], tensor)


def test_masks_become_tensors_once() -> None:
    masks = rhn.VariationalMasks(input=[np.ones((1, 2, 3))], output=np.zeros((2, 4), dtype=int))
    like = jnp.zeros(1, jnp.bfloat16)
    tensors = mask_tensors(masks, like)
    assert tensors.embedding is None
    assert tensors.state is None
    assert tensors.input[0].dtype == tensors.output.dtype == jnp.bfloat16
    assert mask_tensors(tensors, like).output is tensors.output
