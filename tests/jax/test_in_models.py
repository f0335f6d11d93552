"""RHN within other modules, and its parameters in another layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flax import nnx
from layers_jax import LENGTHS, B, E, H, L, T, assert_close, data, make_layer, run

import rhn
from rhn_jax import RHN


def test_nnx_bidirectional_of_two_layers_is_one_layer_with_both_directions() -> None:
    both, x = make_layer(bidirectional=True, return_carry=True), data()
    forward, backward = make_layer(1), make_layer(2)
    exported = both.export_parameters()
    for layer, prefix in ((forward, "layers.0."), (backward, "layers.0.reverse.")):
        names = ("input_weight", "recurrent_weight", "bias")
        layer.load_parameters({f"layers.0.{name}": exported[prefix + name] for name in names})
    of_flax = nnx.Bidirectional(forward, backward, return_carry=True)
    ((forward_carry,), (backward_carry,)), expected = run(of_flax, x, seq_lengths=LENGTHS)
    carry, outputs = run(both, x, seq_lengths=LENGTHS)
    assert_close((carry, outputs), ([forward_carry, backward_carry], expected))
    with pytest.raises(ValueError, match="reverse=True is not accepted: expected False, since the layer reads in both"):
        both(x, reverse=True)


def test_in_nnx_sequential() -> None:
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(RHN(E, H, L, rngs=rngs), nnx.Linear(H, E, rngs=rngs), RHN(E, H, L, rngs=rngs))
    assert run(model, data()).shape == (B, T, H)


@pytest.mark.parametrize("options", [{"num_layers": 2}, {"bidirectional": True, "couple_gates": False}], ids=str)
def test_parameters_by_the_specifications_names_make_the_same_layer(options: dict[str, Any]) -> None:
    layer, other, x = make_layer(**options), make_layer(5, **options), data()
    parameters = layer.export_parameters()
    assert not np.array_equal(run(layer, x), run(other, x))
    other.load_parameters(parameters)
    np.testing.assert_array_equal(run(layer, x), run(other, x))
    outputs, _ = rhn.spec.layers.layers_forward(layer.config, parameters, x)
    assert_close(run(layer, x), outputs)
    with pytest.raises(ValueError, match=r"not expected softmax\.bias"):
        layer.load_parameters({**parameters, "softmax.bias": np.zeros(3)})
