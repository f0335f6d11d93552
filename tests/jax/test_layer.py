"""RHNCell and RHN as their users meet them."""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import Array
from numpy.typing import NDArray

import rhn
from rhn_jax import RHN, RHNCell

T, B, E, H, L = 4, 3, 5, 6, 2
TOLERANCE = 1e-13  # absolute, in float64, of values around 1; measured 4e-16


def make_layer(seed: int = 0, **options: Any) -> RHN:
    """With parameters large enough that all of them have an effect; of NumPy, for which nothing is compiled."""
    options = {"param_dtype": "float64", **options}
    graph, shapes = nnx.split(nnx.eval_shape(lambda: RHN(E, H, L, **options, rngs=nnx.Rngs(0))))
    generator = np.random.default_rng(seed)
    return nnx.merge(
        graph, jax.tree.map(lambda p: jnp.asarray(generator.uniform(-0.8, 0.8, p.shape).astype(p.dtype)), shapes)
    )


@nnx.jit
def run(module: nnx.Module, *arguments: Any) -> Any:
    """A cell's or another module's value, by one program: operation by operation there would be dozens to compile."""
    return module(*arguments)


@nnx.jit
def run_layer(layer: RHN, x: Any, carry: Any = None, masks: Any = None) -> Any:
    """Carry and outputs of a layer."""
    return layer(x, initial_carry=carry, masks=masks, return_carry=True)


def random(*shape: int) -> NDArray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def random_masks(num_layers: int, num_masks: int) -> rhn.VariationalMasks:
    generator = np.random.default_rng(0)
    widths = [E] + [H] * (num_layers - 1)
    return rhn.VariationalMasks(
        input=[generator.integers(0, 2, (num_masks, B, width)) * 2.0 for width in widths],
        state=[generator.integers(0, 2, (num_masks, B, H)) * 2.0 for _ in widths],
    )


def assert_close(actual: Any, expected: Any) -> None:
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=TOLERANCE)


# ----------------------------------------------------------------------------------------------------------------------
# What they compute
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("couple_gates", [True, False])
@pytest.mark.parametrize("masks", ["none", "shared", "separate"])
def test_layer_is_its_cells_step_by_step(couple_gates: bool, masks: str) -> None:
    layer = make_layer(num_layers=2, couple_gates=couple_gates)
    x, carry = random(B, T, E), [random(B, H), random(B, H)]
    num_masks = 1 if masks == "shared" else (2 if couple_gates else 3)
    drawn = None if masks == "none" else random_masks(2, num_masks)
    new_carry, outputs = run_layer(layer, x, carry, drawn)
    states = list(carry)
    for time in range(T):
        below = x[:, time]
        for i, cell in enumerate(layer.cells):
            cell_masks = () if drawn is None else (drawn.input[i], drawn.state[i])
            states[i], below = run(cell, states[i], below, *cell_masks)
        assert_close(outputs[:, time], below)
    assert_close(new_carry, states)


@pytest.mark.usefixtures("float64")
def test_no_carry_is_zero() -> None:
    layer, x = make_layer(num_layers=2), random(B, T, E)
    zeros = layer.initialize_carry((B, E))
    assert [z.shape for z in zeros] == [(B, H)] * 2
    assert not any(z.any() for z in zeros)
    assert_close(run_layer(layer, x), run_layer(layer, x, zeros))


@pytest.mark.usefixtures("float64")
def test_two_windows_are_one() -> None:
    layer, x = make_layer(num_layers=2), random(B, T, E)
    whole_carry, whole = run_layer(layer, x)
    carry, first = run_layer(layer, x[:, :1])
    carry, second = run_layer(layer, x[:, 1:], carry)
    assert_close(np.concatenate((first, second), axis=1), whole)
    assert_close(carry, whole_carry)


@pytest.mark.usefixtures("float64")
def test_time_major_transposes_input_and_output_only() -> None:
    x = random(B, T, E)
    carry, outputs = run_layer(make_layer(), x)
    other_carry, other_outputs = run_layer(make_layer(time_major=True), x.swapaxes(0, 1))
    assert_close(other_outputs.swapaxes(0, 1), outputs)
    assert_close(other_carry, carry)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("time_major", [False, True])
def test_one_sequence_needs_no_batch(time_major: bool) -> None:
    x = random(T, E)
    carry, outputs = run_layer(make_layer(num_layers=2, time_major=time_major), x)
    batched_carry, batched = run_layer(make_layer(num_layers=2), x[None])
    assert outputs.shape == (T, H)
    assert_close(outputs, batched[0])
    assert_close(carry, [s[0] for s in batched_carry])


# ----------------------------------------------------------------------------------------------------------------------
# What Flax and JAX do with them
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_cell_works_in_nnx_rnn() -> None:
    layer, x = make_layer(), random(B, T, E)
    rnn = nnx.RNN(layer.cells[0], return_carry=True)
    (expected_carry,), expected = run_layer(layer, x)
    assert_close(run(rnn, x), (expected_carry, expected))


@pytest.mark.usefixtures("float64")
def test_cell_works_in_nnx_bidirectional() -> None:
    forward, backward, x = make_layer(0), make_layer(1), random(B, T, E)
    both = nnx.Bidirectional(nnx.RNN(forward.cells[0]), nnx.RNN(backward.cells[0]))
    expected = np.concatenate((run(forward, x), run(backward, x[:, ::-1])[:, ::-1]), axis=-1)
    assert_close(run(both, x), expected)


@pytest.mark.usefixtures("float64")
def test_pure_functions_of_the_parameters_compose() -> None:
    """split and merge; jit, vmap and checkpoint of the gradient; nothing of it changes the module."""
    layer, x = make_layer(), random(2, B, T, E)
    graph, params = nnx.split(layer)

    def loss(params: nnx.State, x: Array) -> Array:
        return (nnx.merge(graph, params)(x) ** 2).sum()

    gradients = jax.jit(jax.vmap(jax.grad(jax.checkpoint(loss)), in_axes=(None, 0)))(params, x)
    of_module = nnx.jit(nnx.grad(lambda layer, x: (layer(x) ** 2).sum()))
    for i in range(2):
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], gradients), of_module(layer, x[i]))


@pytest.mark.usefixtures("float64")
def test_export_round_trip() -> None:
    layer, x, carry = make_layer(), random(B, T, E), [random(B, H)]
    graph, params = nnx.split(layer)
    leaves, structure = jax.tree.flatten(params)

    @jax.jit
    def pure(leaves: list[Array], carry: list[Array], x: Array) -> tuple[list[Array], Array]:
        layer = nnx.merge(graph, jax.tree.unflatten(structure, leaves))
        return layer(x, initial_carry=carry, return_carry=True)

    payload = jax.export.export(pure)(leaves, carry, x).serialize(vjp_order=1)
    restored = jax.export.deserialize(payload)
    assert_close(restored.call(leaves, carry, x), run_layer(layer, x, carry))
    restored_gradient = jax.grad(lambda leaves: restored.call(leaves, carry, x)[1].sum())(leaves)
    expected = nnx.jit(nnx.grad(lambda layer: layer(x, initial_carry=carry).sum()))(layer)
    assert_close(restored_gradient, jax.tree.leaves(expected))


@pytest.mark.usefixtures("float64")
def test_copies_are_equal_and_independent() -> None:
    layer, x = make_layer(), random(B, T, E)
    other = copy.deepcopy(layer)
    assert_close(run(layer, x), run(other, x))
    other.cells[0].bias[...] += 1
    assert not np.allclose(run(layer, x), run(other, x))


def test_layer_inside_a_larger_module_trains() -> None:
    class Parity(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.rhn = RHN(1, 16, 2, rngs=rngs)
            self.readout = nnx.Linear(16, 1, rngs=rngs)

        def __call__(self, x: Array) -> Array:
            return self.readout(self.rhn(x))

    x = np.random.default_rng(0).integers(0, 2, (32, 12, 1)).astype(np.float32)
    parity = x.cumsum(axis=1) % 2

    @nnx.jit
    def create() -> tuple[Parity, nnx.Optimizer]:
        model = Parity(nnx.Rngs(0))
        return model, nnx.Optimizer(model, optax.adam(0.02), wrt=nnx.Param)

    model, optimizer = create()

    @nnx.jit
    def step(model: Parity, optimizer: nnx.Optimizer) -> Array:
        loss, gradients = nnx.value_and_grad(lambda model: ((model(x) - parity) ** 2).mean())(model)
        optimizer.update(model, gradients)
        return loss

    losses = [float(step(model, optimizer)) for _ in range(40)]
    assert losses[-1] < 0.95 * losses[0]


# ----------------------------------------------------------------------------------------------------------------------
# What they are made of
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_parameters_have_the_documented_shapes() -> None:
    params = nnx.state(make_layer(num_layers=2, couple_gates=False), nnx.Param)
    shapes = {".".join(map(str, path)): param.shape for path, param in nnx.to_flat_state(params)}
    expected: dict[str, tuple[int, ...]] = {}
    for layer, width in enumerate((E, H)):
        expected[f"cells.{layer}.input_weight"] = (width, 3 * H)
        expected[f"cells.{layer}.bias"] = (L, 3 * H)
        expected |= {f"cells.{layer}.recurrent_weights.{micro_step}": (H, 3 * H) for micro_step in range(L)}
    assert shapes == expected


def test_initial_values_follow_the_options() -> None:
    cell = RHNCell(30, 40, 3, init_scale=0.1, transform_bias=-4.0, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(cell.bias[:, 40:], np.float32(-4.0))
    for free in (cell.input_weight[...], *(w[...] for w in cell.recurrent_weights), cell.bias[:, :40]):
        assert 0.09 < abs(free).max() <= 0.1
        assert abs(free.mean()) < 0.03
    assert not np.array_equal(cell.recurrent_weights[0], cell.recurrent_weights[1])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 0.05)])
def test_computes_in_param_dtype(dtype: str, tolerance: float) -> None:
    """Measured: float32 differs by 1e-7 from float64, bfloat16 by 0.007."""
    (state,), outputs = run_layer(make_layer(param_dtype=dtype), random(B, T, E))
    assert outputs.dtype == state.dtype == dtype
    expected = run(make_layer(), random(B, T, E))
    np.testing.assert_allclose(np.asarray(outputs, np.float64), expected, rtol=0, atol=tolerance)


def test_initialize_carry() -> None:
    (cell,) = make_layer(param_dtype="float32").cells
    zeros = cell.initialize_carry((2, B, E))
    assert zeros.shape == (2, B, H)
    assert not zeros.any()
    ones = cell.initialize_carry((B, E), nnx.Rngs(0), nnx.initializers.ones)
    np.testing.assert_array_equal(ones, np.ones((B, H)))
    with pytest.raises(ValueError, match="carry_init is given without rngs"):
        cell.initialize_carry((B, E), carry_init=nnx.initializers.ones)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "hidden_size=0 is not accepted"),
        ({"recurrence_depth": 0}, "recurrence_depth=0 is not accepted"),
        ({"num_layers": 0}, "num_layers=0 is not accepted"),
        ({"activation": "gelu"}, "activation='gelu' is not accepted: expected one of tanh, sigmoid, relu"),
        ({"init_scale": -1}, "init_scale=-1 is not accepted: expected a number of at least 0"),
        ({"recurrence": "slow"}, "recurrence='slow' is not accepted: expected one of fast, plain, recompute"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RHN(**{"input_size": E, "hidden_size": H, "recurrence_depth": L, **options}, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("x_shape", "carry_shapes", "message"),
    [
        ((B, T, E + 1), None, r"inputs of shape \(3, 4, 6\) are not accepted: .* 5 features"),
        ((E,), None, r"inputs of shape \(5,\) are not accepted"),
        (
            (B, T, E),
            [(B + 1, H)],
            r"initial_carry of shapes \[\(4, 6\)\] is not accepted: expected a list with one array per .* \[\(3, 6\)\]",
        ),
        ((B, T, E), [(B, H)] * 2, r"initial_carry of shapes \[\(3, 6\), \(3, 6\)\] is not accepted: .* \[\(3, 6\)\]"),
    ],
)
def test_impossible_shapes(x_shape: tuple[int, ...], carry_shapes: list[tuple[int, ...]] | None, message: str) -> None:
    layer = make_layer(param_dtype="float32")
    carry = None if carry_shapes is None else [np.zeros(shape) for shape in carry_shapes]
    with pytest.raises(ValueError, match=message):
        layer(np.zeros(x_shape), initial_carry=carry)
