"""RHN exported."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array
from layers_jax import LENGTHS, E, T, assert_close, data, make_layer


@pytest.mark.parametrize("recurrence", ["fast", "recompute", "plain"])
@pytest.mark.parametrize("open_sizes", ["b", "b, t"])
def test_export_with_sizes_left_open(open_sizes: str, recurrence: str) -> None:
    layer = make_layer(recurrence=recurrence, bidirectional=True, return_carry=True)
    graph, params = nnx.split(layer)
    leaves, structure = jax.tree.flatten(params)

    def pure(leaves: list[Array], x: Array, lengths: Array) -> Any:
        return nnx.merge(graph, jax.tree.unflatten(structure, leaves))(x, seq_lengths=lengths)

    batch, *rest = jax.export.symbolic_shape(open_sizes)
    shapes = (
        jax.ShapeDtypeStruct((batch, *(rest or [T]), E), jnp.float32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
    )
    payload = jax.export.export(jax.jit(pure))(leaves, *shapes).serialize(vjp_order=1)
    restored = jax.export.deserialize(payload)
    x, lengths = data(), LENGTHS.astype(np.int32)
    assert_close(restored.call(leaves, x, lengths), pure(leaves, x, lengths))
    of_restored, expected = (
        jax.grad(lambda leaves, call=call: call(leaves, x, lengths)[1].sum())(leaves) for call in (restored.call, pure)
    )
    assert_close(of_restored, expected, tolerance=2e-5)
