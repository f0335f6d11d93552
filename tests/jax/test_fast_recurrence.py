"""The two recurrences against each other, numerical derivatives and JAX's transformations."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import SIZES, name_of, relative_error
from jax import Array
from jax.test_util import check_grads

from rhn_jax import fast_recurrence, plain_recurrence

# The function of the same name hides the module in the package's namespace.
FAST_MODULE = sys.modules["rhn_jax.fast_recurrence"]

# Largest difference relative to the largest entry, in float64. Measured: 2e-15.
TOLERANCE = 1e-13

pytestmark = pytest.mark.usefixtures("float64")


class Inputs(NamedTuple):
    """Arguments of a recurrence."""

    projected: Array  # (T, B, G*H)
    state: Array  # (B, H)
    weights: list[Array]  # L of (H, G*H)
    biases: Array  # (L, G*H)
    mask: Array | None  # (M, B, H)
    valid: Array | None = None  # (T, B, 1)
    update_mask: Array | None = None  # (B, H)


def make_inputs(
    recurrence_depth: int = 2,
    length: int = 3,
    batch_size: int = 2,
    masks: str = "shared",
    num_gates: int = 2,
    hidden: int = 4,
) -> Inputs:
    generator = np.random.default_rng(recurrence_depth + 10 * length)

    def normal(*shape: int, scale: float = 1.0) -> Array:
        return jnp.asarray(scale * generator.standard_normal(shape))

    width = num_gates * hidden
    mask_shape = ({"shared": 1, "separate": num_gates, "none": 0}[masks], batch_size, hidden)
    return Inputs(
        normal(length, batch_size, width),
        normal(batch_size, hidden),
        [normal(hidden, width, scale=0.5) for _ in range(recurrence_depth)],
        normal(recurrence_depth, width),
        None if masks == "none" else jnp.asarray((generator.random(mask_shape) < 0.7) / 0.7),
    )


Recurrence = Callable[..., Array]
recompute = partial(fast_recurrence, recompute=True)


def loss_of(recurrence: Recurrence, activation: str = "tanh") -> Callable[[Inputs], Array]:
    """A scalar that weighs every output differently."""
    return lambda inputs: loss_and_outputs(recurrence, activation)(inputs)[0]


def loss_and_outputs(recurrence: Recurrence, activation: str) -> Callable[[Inputs], tuple[Array, Array]]:
    def loss(inputs: Inputs) -> tuple[Array, Array]:
        outputs = recurrence(*inputs[:5], activation, inputs.valid, inputs.update_mask)
        return (outputs * jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape)).sum(), outputs

    return loss


def assert_close(actual: Any, expected: Any) -> None:
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert relative_error(a, e) <= TOLERANCE


def value_and_gradients(recurrence: Recurrence, inputs: Inputs, activation: str = "tanh") -> Any:
    """Outputs, and gradients of everything, the mask included."""
    loss = loss_and_outputs(recurrence, activation)
    of_floats = jax.value_and_grad(lambda floats: loss(floats._replace(valid=inputs.valid)), has_aux=True)
    return jax.jit(of_floats)(inputs._replace(valid=None))


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("sizes", SIZES, ids=name_of)
def test_fast_equals_plain(sizes: dict[str, Any]) -> None:
    inputs = make_inputs(**sizes)
    assert_close(value_and_gradients(fast_recurrence, inputs), value_and_gradients(plain_recurrence, inputs))


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("num_gates", [2, 3])
@pytest.mark.parametrize("masks", ["none", "shared", "separate"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_fast_equals_plain_for_every_kind_of_gate(num_gates: int, masks: str, activation: str) -> None:
    inputs = make_inputs(num_gates=num_gates, masks=masks)
    fast, plain = (value_and_gradients(r, inputs, activation) for r in (fast_recurrence, plain_recurrence))
    assert_close(fast, plain)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("recurrence_depth", [1, 3])
@pytest.mark.parametrize("masks", ["none", "shared", "separate"])
@pytest.mark.parametrize("num_gates", [2, 3])
def test_recompute_equals_fast(recurrence_depth: int, masks: str, num_gates: int) -> None:
    inputs = make_inputs(recurrence_depth, masks=masks, num_gates=num_gates)
    assert_close(value_and_gradients(recompute, inputs), value_and_gradients(fast_recurrence, inputs))


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("recurrence", [fast_recurrence, recompute], ids=["fast", "recompute"])
@pytest.mark.parametrize("masks", ["none", "separate"])
@pytest.mark.parametrize("num_gates", [2, 3])
def test_an_update_mask_and_its_gradient(recurrence: Recurrence, masks: str, num_gates: int) -> None:
    update_mask = jnp.asarray([[0.0, 2.0, 2.0, 0.0], [2.0, 2.0, 0.0, 2.0]])
    inputs = make_inputs(masks=masks, num_gates=num_gates)._replace(update_mask=update_mask)
    assert_close(value_and_gradients(recurrence, inputs), value_and_gradients(plain_recurrence, inputs))


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("recurrence", [fast_recurrence, recompute], ids=["fast", "recompute"])
@pytest.mark.parametrize("masks", ["none", "shared", "separate"])
@pytest.mark.parametrize("num_gates", [2, 3])
def test_a_state_is_held_where_a_step_is_not_valid(recurrence: Recurrence, masks: str, num_gates: int) -> None:
    """With holes anywhere, as Keras' masks may have them; rows that are valid throughout, and nowhere."""
    valid = jnp.asarray([[1, 0, 0, 1], [1, 1, 0, 0], [1, 0, 0, 1]], bool)[..., None]  # (T, B, 1)
    inputs = make_inputs(batch_size=4, masks=masks, num_gates=num_gates)._replace(valid=valid)
    actual, expected = value_and_gradients(recurrence, inputs), value_and_gradients(plain_recurrence, inputs)
    assert_close(actual, expected)
    (_, outputs), _ = actual
    for row in range(4):
        alone = Inputs(
            inputs.projected[np.flatnonzero(valid[:, row]), row],
            inputs.state[row],
            inputs.weights,
            inputs.biases,
            None if inputs.mask is None else inputs.mask[:, row],
        )
        states = [inputs.state[row], *plain_recurrence(*alone[:5])] if valid[:, row].any() else [inputs.state[row]]
        for time, reached in enumerate(np.cumsum(valid[:, row])):
            assert_close(outputs[time, row], states[reached])


@pytest.mark.parametrize("recurrence", [fast_recurrence, recompute], ids=["fast", "recompute"])
def test_many_rows_transpose_the_weights(recurrence: Recurrence, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make_inputs(length=3, masks="separate")
    monkeypatch.setattr(FAST_MODULE, "_ROWS_WORTH_A_TRANSPOSE", 6)
    transposed = value_and_gradients(recurrence, inputs)
    monkeypatch.undo()
    assert_close(transposed, value_and_gradients(recurrence, inputs))


@pytest.mark.parametrize("recurrence", [fast_recurrence, recompute], ids=["fast", "recompute"])
def test_a_window_in_slices_equals_one_in_one_piece(recurrence: Recurrence, monkeypatch: pytest.MonkeyPatch) -> None:
    valid = jnp.arange(6)[:, None, None] < jnp.asarray([[6], [3]])  # (T, B, 1)
    inputs = make_inputs(length=6)._replace(valid=valid)
    monkeypatch.setattr(FAST_MODULE, "_SLICE_ROWS", 4)  # of the 12 that there are
    in_slices = value_and_gradients(recurrence, inputs)
    monkeypatch.undo()
    assert_close(in_slices, value_and_gradients(recurrence, inputs))


@pytest.mark.parametrize(
    ("recurrence", "num_gates", "masks", "depth"),
    [(fast_recurrence, 2, "shared", 2), (fast_recurrence, 3, "separate", 1), (recompute, 2, "separate", 2)],
)
def test_first_and_second_derivatives_in_reverse_mode(
    recurrence: Recurrence, num_gates: int, masks: str, depth: int
) -> None:
    inputs = make_inputs(num_gates=num_gates, masks=masks, recurrence_depth=depth, length=2, batch_size=1, hidden=2)
    check_grads(jax.jit(recurrence), tuple(inputs[:5]), order=2, modes=["rev"])


def test_hessian() -> None:
    """Forward mode over the hand-written backward."""
    inputs = make_inputs(length=2, batch_size=1, hidden=2)

    def hessian(recurrence: Recurrence) -> Array:
        loss = loss_of(recurrence)
        return jax.jit(jax.hessian(lambda state: loss(inputs._replace(state=state))))(inputs.state)

    assert_close(hessian(fast_recurrence), hessian(plain_recurrence))


def test_forward_mode_is_for_plain_only() -> None:
    inputs = make_inputs()
    with pytest.raises(TypeError, match="no forward derivative: use plain_recurrence"):
        jax.jvp(loss_of(fast_recurrence), (inputs,), (inputs,))
    _, derivative = jax.jvp(loss_of(plain_recurrence), (inputs,), (inputs,))
    gradients = jax.grad(loss_of(fast_recurrence))(inputs)
    along = sum(jnp.vdot(g, x) for g, x in zip(jax.tree.leaves(gradients), jax.tree.leaves(inputs), strict=True))
    assert_close(derivative, along)


def test_transformations_compose() -> None:
    """jit, vmap and checkpoint around the fast path, against one by one without."""
    many = [make_inputs(length=length) for length in (3, 3)]
    many[1] = jax.tree.map(jnp.sin, many[1])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)
    value_and_gradients = jax.jit(jax.vmap(jax.value_and_grad(jax.checkpoint(loss_of(fast_recurrence)))))(stacked)
    plain = jax.jit(jax.value_and_grad(loss_of(plain_recurrence)))
    for i, inputs in enumerate(many):
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], value_and_gradients), plain(inputs))


def test_any_number_of_batch_axes() -> None:
    flat = make_inputs(batch_size=6)

    def in_two_axes(array: Array) -> Array:
        return array.reshape(*array.shape[:-2], 2, 3, array.shape[-1])

    folded = flat._replace(
        projected=in_two_axes(flat.projected), state=in_two_axes(flat.state), mask=in_two_axes(flat.mask)
    )
    gradients, expected = (jax.jit(jax.grad(loss_of(fast_recurrence)))(inputs) for inputs in (folded, flat))
    assert_close(jax.tree.map(lambda g, e: g.reshape(e.shape), gradients, expected), expected)
