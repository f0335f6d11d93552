"""The fast recurrence against plain autodiff, and both against finite differences."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from cases import relative_error
from numpy.typing import NDArray

from rhn_tf import fast_recurrence, plain_recurrence

FAST_RECURRENCE = importlib.import_module("rhn_tf.fast_recurrence")  # in the package, that name is the function

# Largest relative difference seen between the two in float64: 2e-15, from another order of summation.
TOLERANCE = 1e-13
# Central differences with steps of 1e-5 (first) and 1e-3 (second derivatives): 1e-9 and 1e-7 are left of curvature.
FINITE_DIFFERENCE_TOLERANCE = 1e-5

SIZES = [(depth, length, batch_size) for depth in (1, 2, 3, 10) for length in (1, 2, 5) for batch_size in (1, 3)]
KINDS: dict[str, dict[str, Any]] = {
    "shared mask": {"num_masks": 1},
    "separate masks": {"num_masks": 2},
    "no mask": {"num_masks": 0},
    "uncoupled": {"num_gates": 3, "num_masks": 1},
    "uncoupled, separate masks": {"num_gates": 3, "num_masks": 3, "activation": "sigmoid"},
    "relu": {"num_masks": 1, "activation": "relu"},
}


def make_arguments(
    depth: int, length: int, batch_size: int, *, num_gates: int = 2, num_masks: int = 1, hidden_size: int = 4
) -> tuple[list[NDArray], NDArray | None]:
    """[projected, state, biases, weights...] and the mask of a recurrence, float64."""
    generator = np.random.default_rng(depth + 10 * length + 100 * batch_size)
    width = num_gates * hidden_size
    arguments = [
        generator.standard_normal((length, batch_size, width)),
        generator.standard_normal((batch_size, hidden_size)),
        generator.standard_normal((depth, width)),
        *(generator.standard_normal((hidden_size, width)) / 2 for _ in range(depth)),
    ]
    mask = (generator.random((num_masks, batch_size, hidden_size)) < 0.7) / 0.7 if num_masks else None
    return arguments, mask


def outputs_and_gradients(
    recurrence: Callable[..., tf.Tensor],
    arguments: list[NDArray],
    mask: NDArray | None,
    activation: str,
    valid: NDArray | None = None,
) -> list[tf.Tensor]:
    """The outputs and the gradient of a weighted sum of them for every argument."""
    projected, state, biases, *weights = (tf.constant(a) for a in arguments)
    with tf.GradientTape() as tape:
        tape.watch([projected, state, biases, weights])
        outputs = recurrence(projected, state, weights, biases, mask, activation, valid=valid)
    d_outputs = tf.reshape(tf.linspace(-1.0, 1.0, outputs.shape.num_elements()), outputs.shape)
    sources = [projected, state, biases, *weights]
    return [outputs, *tape.gradient(outputs, sources, output_gradients=tf.cast(d_outputs, outputs.dtype))]


Compile = Callable[[Callable[[], list[tf.Tensor]]], Callable[[], list[tf.Tensor]]]


def assert_fast_equals_plain(
    kind: str, size: tuple[int, int, int], compile_with: Compile, recompute: bool = False, valid: NDArray | None = None
) -> None:
    options = dict(KINDS[kind])
    activation = options.pop("activation", "tanh")
    arguments, mask = make_arguments(*size, **options)
    mask = None if mask is None else tf.constant(mask)
    fast, plain = (
        compile_with(
            lambda recurrence=recurrence: outputs_and_gradients(recurrence, arguments, mask, activation, valid)
        )()
        for recurrence in (partial(fast_recurrence, recompute=recompute), plain_recurrence)
    )
    for actual, expected in zip(fast, plain, strict=True):
        assert relative_error(actual, expected) < TOLERANCE


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["shared mask", "separate masks", "no mask"])
def test_fast_equals_plain(kind: str, size: tuple[int, int, int]) -> None:
    assert_fast_equals_plain(kind, size, compile_with=lambda function: function)


@pytest.mark.parametrize("kind", ["uncoupled", "uncoupled, separate masks", "relu"])
def test_fast_equals_plain_with_other_gates(kind: str) -> None:
    assert_fast_equals_plain(kind, (3, 2, 3), compile_with=lambda function: function)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", ["no mask", "shared mask", "separate masks", "uncoupled, separate masks"])
def test_fast_equals_plain_with_an_update_mask(kind: str, recompute: bool) -> None:
    options = dict(KINDS[kind])
    activation = options.pop("activation", "tanh")
    arguments, mask = make_arguments(2, 3, 2, **options)
    update_mask = tf.constant([[0.0, 2.0, 2.0, 0.0], [2.0, 2.0, 0.0, 2.0]], tf.float64)
    fast, plain = (
        outputs_and_gradients(
            partial(recurrence, update_mask=update_mask),
            arguments,
            None if mask is None else tf.constant(mask),
            activation,
        )
        for recurrence in (partial(fast_recurrence, recompute=recompute), plain_recurrence)
    )
    for actual, expected in zip(fast, plain, strict=True):
        assert relative_error(actual, expected) < TOLERANCE


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "jit"])
def test_fast_equals_plain_in_a_function(jit_compile: bool) -> None:
    kind = "uncoupled, separate masks"
    assert_fast_equals_plain(kind, (2, 3, 2), lambda function: tf.function(function, jit_compile=jit_compile))


# Eager, and compiled where all gates, masks and micro-steps differ.
RECOMPUTED = [(kind, depth, None) for kind in ("no mask", "shared mask", "separate masks") for depth in (1, 3)]
RECOMPUTED += [("uncoupled", 3, None), ("uncoupled, separate masks", 3, True)]


@pytest.mark.parametrize(("kind", "depth", "jit_compile"), RECOMPUTED)
def test_recomputed_gates_change_nothing(kind: str, depth: int, jit_compile: bool | None) -> None:
    options = dict(KINDS[kind])
    activation = options.pop("activation", "tanh")
    arguments, mask = make_arguments(depth, 3, 2, **options)
    mask = None if mask is None else tf.constant(mask)

    def both() -> list[list[tf.Tensor]]:
        recurrences = (fast_recurrence, partial(fast_recurrence, recompute=True))
        return [outputs_and_gradients(recurrence, arguments, mask, activation) for recurrence in recurrences]

    fast, recomputed = both() if jit_compile is None else tf.function(both, jit_compile=True)()
    for actual, expected in zip(recomputed, fast, strict=True):
        assert relative_error(actual, expected) < TOLERANCE


@pytest.mark.parametrize("kind", ["no mask", "uncoupled, separate masks"])
def test_many_rows_transpose_the_weights(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FAST_RECURRENCE, "_ROWS_WORTH_A_TRANSPOSE", 6)
    assert_fast_equals_plain(kind, (2, 3, 2), compile_with=lambda function: function)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_window_in_slices_equals_plain(compiled: bool, recompute: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FAST_RECURRENCE, "_SLICE_ROWS", 4)  # of the 12 that there are

    def compile_with(function: Callable[[], list[tf.Tensor]]) -> Callable[[], list[tf.Tensor]]:
        return tf.function(function, jit_compile=True) if compiled else function

    assert_fast_equals_plain("separate masks", (2, 6, 2), compile_with, recompute=recompute)


# Holes, padding at either end, a row without a valid step.
VALID = np.array([[1, 1, 0, 1, 0, 0], [0, 0, 1, 1, 1, 1], [0] * 6, [1] * 6], bool).T[:, :, None]  # (T, B, 1)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("in_slices", [False, True])
@pytest.mark.parametrize("jit_compile", [None, True])
def test_fast_equals_plain_where_states_are_held(
    jit_compile: bool | None, in_slices: bool, recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_slices:
        monkeypatch.setattr(FAST_RECURRENCE, "_SLICE_ROWS", 8)  # of the 24 that there are

    def compile_with(function: Callable[[], list[tf.Tensor]]) -> Callable[[], list[tf.Tensor]]:
        return tf.function(function, jit_compile=True) if jit_compile else function

    assert_fast_equals_plain("uncoupled, separate masks", (2, 6, 4), compile_with, recompute, tf.constant(VALID))


def test_plain_holds_states() -> None:
    (projected, state, biases, *weights), mask = make_arguments(2, 6, 4)
    held = plain_recurrence(projected, state, weights, biases, mask, valid=tf.constant(VALID)).numpy()  # (T, B, H)
    for row in range(4):
        valid = VALID[:, row, 0]
        alone = plain_recurrence(
            projected[valid, row : row + 1], tf.constant(state[row : row + 1]), weights, biases, mask[:, row : row + 1]
        )
        steps = np.concatenate([state[row : row + 1], alone[:, 0]])  # the state, and what each valid step makes of it
        np.testing.assert_allclose(held[:, row], steps[np.cumsum(valid)], atol=TOLERANCE)


def test_an_unrolled_loop_changes_nothing() -> None:
    arguments, mask = make_arguments(2, 3, 2)
    plain, unrolled = (
        outputs_and_gradients(partial(plain_recurrence, unroll=unroll), arguments, mask, "tanh")
        for unroll in (False, True)
    )
    for actual, expected in zip(unrolled, plain, strict=True):
        assert relative_error(actual, expected) < TOLERANCE


@pytest.mark.parametrize("kind", ["shared mask", "uncoupled, separate masks"])
def test_fast_gradients_against_finite_differences(kind: str) -> None:
    options = dict(KINDS[kind])
    activation = options.pop("activation", "tanh")
    arguments, mask = make_arguments(2, 2, 1, hidden_size=2, **options)

    def outputs(projected: tf.Tensor, state: tf.Tensor, biases: tf.Tensor, *weights: tf.Tensor) -> tf.Tensor:
        return fast_recurrence(
            projected, state, weights, biases, None if mask is None else tf.constant(mask), activation
        )

    analytic, numeric = tf.test.compute_gradient(outputs, [tf.constant(a) for a in arguments], delta=1e-5)
    for a, n in zip(analytic, numeric, strict=True):
        assert np.max(np.abs(a - n)) < FINITE_DIFFERENCE_TOLERANCE


def total(recurrence: Callable[..., tf.Tensor], state: tf.Tensor) -> tf.Tensor:
    """A scalar function of a state (1, 2)."""
    projected, biases = tf.ones((2, 1, 4), tf.float64), tf.zeros((2, 4), tf.float64)
    weight = tf.reshape(tf.linspace(tf.constant(-1.0, tf.float64), 1.0, 8), (2, 4))
    return tf.reduce_sum(recurrence(projected, state, [weight, weight], biases))


def curvature(recurrence: Callable[..., tf.Tensor], state: tf.Tensor) -> tf.Tensor:
    """Second derivative of `total` along the direction (1, 1)."""
    with tf.GradientTape() as outer:
        outer.watch(state)
        with tf.GradientTape() as inner:
            inner.watch(state)
            value = total(recurrence, state)
        slope = tf.reduce_sum(inner.gradient(value, state))
    return tf.reduce_sum(outer.gradient(slope, state))


@pytest.mark.parametrize("jit_compile", [None, False, True], ids=["eager", "graph", "jit"])
def test_fast_refuses_a_second_derivative(jit_compile: bool | None) -> None:
    def differentiate(state: tf.Tensor) -> tf.Tensor:
        return curvature(fast_recurrence, state)

    function = differentiate
    if jit_compile is not None:  # without AutoGraph, which would wrap the error
        function = tf.function(differentiate, jit_compile=jit_compile, autograph=False)
    with pytest.raises(LookupError, match="fast_recurrence has no second derivative: use plain_recurrence"):
        function(tf.ones((1, 2), tf.float64))


def test_plain_has_second_derivatives() -> None:
    state, step = tf.constant([[0.3, -0.2]], tf.float64), 1e-3
    expected = sum(weight * total(plain_recurrence, state + k * step) for k, weight in ((-1, 1), (0, -2), (1, 1)))
    assert abs(float(curvature(plain_recurrence, state)) - float(expected) / step**2) < FINITE_DIFFERENCE_TOLERANCE


def test_one_trace_serves_every_length_and_batch_size() -> None:
    """As Keras calls it: shapes of (None, None, features)."""
    specs = [tf.TensorSpec(shape, tf.float64) for shape in ((None, None, 8), (None, 4), (2, 8), (4, 8), (4, 8))]

    @tf.function(input_signature=specs)
    def gradient(projected: tf.Tensor, state: tf.Tensor, biases: tf.Tensor, *weights: tf.Tensor) -> tf.Tensor:
        return tf.gradients(fast_recurrence(projected, state, weights, biases), projected)[0]

    for size in ((2, 1, 1), (2, 3, 2)):
        (projected, state, biases, *weights), _ = make_arguments(*size, num_masks=0)
        expected = outputs_and_gradients(plain_recurrence, [projected, state, biases, *weights], None, "tanh")
        assert gradient(projected, state, biases, *weights).shape == expected[1].shape
