"""RHN and RHNCell in place of `nnx.RNN` and of Flax' cells."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array
from layers_jax import LENGTHS, B, E, H, L, T, assert_close, data, make_layer, run

from rhn_jax import RHN, RHNCell

# ----------------------------------------------------------------------------------------------------------------------
# Called as nnx.RNN
# ----------------------------------------------------------------------------------------------------------------------


def test_takes_every_argument_of_a_call_of_nnx_rnn() -> None:
    of_rnn, own = (inspect.signature(layer.__call__).parameters for layer in (nnx.RNN, RHN))
    assert [name for name in of_rnn if name not in own] == []
    assert [name for name, p in of_rnn.items() if p.kind is p.KEYWORD_ONLY and own[name].kind != p.kind] == []


@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"reverse": True, "keep_order": True}], ids=str)
@pytest.mark.parametrize("time_major", [False, True])
def test_answers_as_nnx_rnn_of_its_cell(options: dict[str, bool], time_major: bool, with_lengths: bool) -> None:
    """But that outputs after a sequence's end are 0, and a sequence of no steps leaves the carry as it is."""
    layer, x, start = make_layer(), data(), data(B, H)
    lengths = np.maximum(LENGTHS, 1) if with_lengths else None  # nnx.RNN has no carry for a length of 0
    rnn = nnx.RNN(layer.cells[0])
    call = {"time_major": time_major, "seq_lengths": lengths, **options}
    x = x.swapaxes(0, 1) if time_major else x
    expected_carry, expected = run(rnn, x, initial_carry=start, return_carry=True, **call)
    (carry,), outputs = run(layer, x, initial_carry=[start], return_carry=True, **call)
    if lengths is not None:
        valid = np.arange(T)[:, None] < lengths[:, None, None]  # (B, T, 1)
        expected = np.where(valid.swapaxes(0, 1) if time_major else valid, expected, 0)
    assert_close((carry, outputs), (expected_carry, expected))


@pytest.mark.parametrize("name", ["time_major", "return_carry", "reverse", "keep_order"])
def test_the_constructor_sets_what_a_call_does_not_say(name: str) -> None:
    x, options = data(), {"reverse": True} if name == "keep_order" else {}
    assert_close(run(make_layer(**options, **{name: True}), x), run(make_layer(), x, **options, **{name: True}))
    assert_close(run(make_layer(**{name: True}), x, **options, **{name: False}), run(make_layer(), x, **options))


def test_more_batch_axes_than_one() -> None:
    layer, x, lengths = make_layer(bidirectional=True), data(2, 3, T, E), np.array([[0, 1, 2], [3, 4, 5]])
    outputs = run(layer, x, seq_lengths=lengths)
    flat = run(layer, x.reshape(6, T, E), seq_lengths=lengths.ravel())
    assert_close(outputs.reshape(6, T, 2 * H), flat)
    assert_close(run(layer, x[1, 0], seq_lengths=3), outputs[1, 0])


@pytest.mark.parametrize("call", [lambda layer, x: layer(None, x), lambda layer, x: layer([data(B, H)], x, None)])
def test_a_call_with_the_carry_first_says_how_it_is_called_now(call: Any) -> None:
    with pytest.raises(TypeError, match=r"layer\(carry, x\) is now layer\(x, initial_carry=carry, return_carry=True\)"):
        call(make_layer(), data())


def test_a_carry_that_is_one_array_is_refused() -> None:
    with pytest.raises(ValueError, match=r"initial_carry of shapes \(4, 6\) is not accepted: expected a list with one"):
        make_layer()(data(), initial_carry=data(B, H))


@pytest.mark.parametrize("shape", [(0, T, E), (B, 0, E)])
@pytest.mark.parametrize("recurrence", ["fast", "recompute", "plain"])
def test_nothing_to_read(shape: tuple[int, ...], recurrence: str) -> None:
    layer, x = make_layer(recurrence=recurrence), jnp.zeros(shape)
    (carry,), outputs = layer(x, return_carry=True)
    expected_carry, expected = nnx.RNN(nnx.GRUCell(E, H, rngs=nnx.Rngs(0)))(x, return_carry=True)
    assert (carry.shape, outputs.shape) == (expected_carry.shape, expected.shape)
    gradients = nnx.grad(lambda layer: layer(x).sum())(layer)
    assert not any(g.any() for g in jax.tree.leaves(gradients))


# ----------------------------------------------------------------------------------------------------------------------
# What Flax' cells take
# ----------------------------------------------------------------------------------------------------------------------


def test_initialisers_of_flax() -> None:
    init = nnx.initializers
    options = {"kernel_init": init.ones, "recurrent_kernel_init": init.orthogonal(), "bias_init": init.constant(3.0)}
    for cell in (RHNCell(E, H, L, **options, rngs=nnx.Rngs(0)), make_layer(**options).cells[0]):
        np.testing.assert_array_equal(cell.input_weight, np.ones((E, 2 * H)))
        for weight in cell.recurrent_weights:
            assert_close(weight @ weight.T, np.eye(H))
        np.testing.assert_array_equal(cell.bias, np.tile([3.0, -2.0], (L, 1)).repeat(H, axis=1))


def test_the_carrys_initialiser() -> None:
    layer, x = make_layer(carry_init=nnx.initializers.normal(1.0)), data()
    assert_close(layer(x, rngs=nnx.Rngs(3)), layer(x, initial_carry=layer.initialize_carry((B, E), nnx.Rngs(3))))
    assert not np.allclose(layer(x, rngs=nnx.Rngs(3)), layer(x, rngs=nnx.Rngs(4)))
    with pytest.raises(ValueError, match="carry_init is given without rngs"):
        layer(x)


def test_computes_in_a_lower_dtype_than_its_parameters() -> None:
    layer, x = make_layer(dtype=jnp.bfloat16), data()
    (carry,), outputs = run(layer, x, return_carry=True)
    of_cell = run(nnx.RNN(layer.cells[0]), x)
    assert carry.dtype == outputs.dtype == of_cell.dtype == jnp.bfloat16
    gradients = nnx.jit(nnx.grad(lambda layer, x: layer(x).astype(jnp.float32).sum()))(layer, x)
    assert {g.dtype.name for g in jax.tree.leaves(gradients)} == {"float32"}
    assert_close(outputs.astype(jnp.float32), run(make_layer(), x), tolerance=0.03)  # measured 0.006


def test_the_users_promotion_is_used() -> None:
    seen = []

    def promote(arrays: tuple[Any, ...], /, *, dtype: Any = None, inexact: bool = True) -> tuple[Array, ...]:
        seen.extend(arrays)
        return tuple(jnp.asarray(array, dtype) for array in arrays)

    assert make_layer(promote_dtype=promote)(data()).dtype == jnp.float32
    assert {jnp.shape(array) for array in seen} == {(T, B, E), (B, H), (E, 2 * H), (H, 2 * H), (L, 2 * H)}


def test_sharding_of_the_parameters() -> None:
    names = {"out_sharding": (None, "model")}
    mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        layer = make_layer(kernel_metadata=names, recurrent_kernel_metadata=names, bias_metadata=names)
        specs = nnx.to_flat_state(nnx.get_partition_spec(nnx.state(layer, nnx.Param)))
        assert run(layer, data()).shape == (B, T, H)
        partitioned = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "model"))
        (spec,) = nnx.to_flat_state(nnx.get_partition_spec(nnx.state(make_layer(kernel_init=partitioned).cells[0])))[
            1:2
        ]
    assert {spec.get_value() for _, spec in specs} == {jax.sharding.PartitionSpec(None, "model")}
    assert spec[1].get_value() == jax.sharding.PartitionSpec(None, "model")
