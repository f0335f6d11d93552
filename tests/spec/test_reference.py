"""SPEC.md sections 2, 3, 5 and 6: the reference against derivatives that owe nothing to its backward, and against every
fault that other implementations are known for. What the authors' programs say is in test_authors.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import Case, make_case
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rhn import RHNConfig, VariationalMasks
from rhn.spec import reference
from rhn.spec.reference import LayerWeights, layer_backward, layer_forward

# ---------------------------------------------------------------------------------------------------------------------
# Cases
# ---------------------------------------------------------------------------------------------------------------------

MASK_KINDS = VariationalMasks._fields


@st.composite
def cases(draw: st.DrawFn, **fixed: object) -> Case:
    """Small models of every architecture, with a state and any subset of the masks."""
    options: dict[str, object] = {
        "vocab_size": draw(st.integers(1, 5)),
        "hidden_size": draw(st.integers(1, 4)),
        "embedding_size": draw(st.none() | st.integers(1, 4)),
        "tie_weights": draw(st.booleans()),
        "recurrence_depth": draw(st.integers(1, 3)),
        "num_layers": draw(st.integers(1, 2)),
        "length": draw(st.integers(1, 4)),
        "batch_size": draw(st.integers(1, 3)),
        "couple_gates": draw(st.booleans()),
        "activation": draw(st.sampled_from(["tanh", "sigmoid", "relu"])),
        "masks": draw(st.sampled_from(["shared", "separate"])),
        "drop_update": 0.4,
        "time_masks": draw(st.booleans()),
        "reset_probability": 0.5,
        "seed": draw(st.integers(0, 2**32 - 1)),
    }
    case = make_case(**{**options, **fixed})
    absent = draw(st.sets(st.sampled_from(MASK_KINDS)))
    return case._replace(masks=case.masks._replace(**dict.fromkeys(absent)))


def layer_case(case: Case) -> tuple[Any, ...]:
    """The first layer of a case by itself, as `layer_forward` takes it."""
    names = ("input_weight", "recurrent_weight", "bias")
    weights = LayerWeights(*(case.parameters[f"layers.0.{name}"] for name in names))
    x = case.parameters["embedding"][case.tokens]  # (B, T, E)
    input_mask, state_mask, update_mask = case.masks.of_layer(0)
    return weights, x, case.state[0], input_mask, state_mask, case.config.activation, update_mask


def run(case: Case) -> tuple[NDArray, list[NDArray]]:
    return reference.forward(case.config, case.parameters, case.tokens, case.state, case.masks)


# ---------------------------------------------------------------------------------------------------------------------
# Forward, against arithmetic by hand
# ---------------------------------------------------------------------------------------------------------------------


def test_one_unit_by_hand() -> None:
    """Two time steps of two micro-steps with scalars only; no array operation is shared with the reference."""
    config = RHNConfig(vocab_size=2, hidden_size=1, recurrence_depth=2, share_gate_masks=False, tie_weights=True)
    parameters = {
        "embedding": np.array([[0.3], [-0.7]]),
        "layers.0.input_weight": np.array([[[0.5]], [[-0.4]]]),
        "layers.0.recurrent_weight": np.array([[[[0.9]], [[0.2]]], [[[-0.6]], [[0.8]]]]),
        "layers.0.bias": np.array([[[0.1], [-0.2]], [[0.05], [0.4]]]),
        "softmax.bias": np.array([0.25, -0.5]),
    }
    masks = VariationalMasks(
        embedding=np.array([[2.0, 4.0]]),
        input=[np.array([[[1.25]], [[5.0]]])],
        state=[np.array([[[2.0]], [[0.0]]])],
        output=np.array([[1.5]]),
    )

    def sigmoid(z: float) -> float:
        return 1.0 / (1.0 + math.exp(-z))

    s = 0.6
    expected_logits, expected_loss = [], 0.0
    for x, target in ((-0.7 * 2.0, 0), (0.3 * 4.0, 1)):
        h = math.tanh(1.25 * x * 0.5 + 2.0 * s * 0.9 + 0.1)
        t = sigmoid(5.0 * x * -0.4 + 0.0 * s * 0.2 - 0.2)
        s = h * t + s * (1 - t)
        h = math.tanh(2.0 * s * -0.6 + 0.05)
        t = sigmoid(0.0 * s * 0.8 + 0.4)
        s = h * t + s * (1 - t)
        logits = [1.5 * s * 0.3 + 0.25, 1.5 * s * -0.7 - 0.5]
        expected_logits.append(logits)
        expected_loss -= math.log(math.exp(logits[target]) / sum(math.exp(z) for z in logits))

    logits, state = reference.forward(config, parameters, [[1, 0]], [np.array([[0.6]])], masks)
    loss, _, _ = reference.gradients(config, parameters, [[1, 0]], [[0, 1]], [np.array([[0.6]])], masks)
    # A handful of operations in float64: a few units in the last place.
    np.testing.assert_allclose(logits, [expected_logits], rtol=1e-14)
    np.testing.assert_allclose(state, [[[s]]], rtol=1e-14)
    assert loss == pytest.approx(expected_loss, rel=1e-14)


def test_the_uncoupled_carry_gate_has_weights_of_its_own() -> None:
    weights = LayerWeights(np.zeros((3, 1, 1)), np.zeros((1, 3, 1, 1)), np.array([[[0.7], [-1.0], [2.0]]]))
    outputs, _ = layer_forward(weights, np.zeros((1, 1, 1)), np.array([[0.5]]))
    expected = math.tanh(0.7) / (1 + math.exp(1.0)) + 0.5 / (1 + math.exp(-2.0))
    assert outputs[0, 0, 0] == pytest.approx(expected, rel=1e-14)


# ---------------------------------------------------------------------------------------------------------------------
# Backward, by complex-step differentiation: d f / d p = Im f(p + ih) / h, without cancellation
# ---------------------------------------------------------------------------------------------------------------------

STEP = 1e-30
GRADIENT_TOLERANCE = 1e-12  # the largest difference in 1000 cases is 1.7e-14


def gradient_error(actual: NDArray, expected: NDArray) -> float:
    """Largest difference, relative to the largest entry. The terms of a gradient are of order 1: where they cancel to
    less than 0.01, the difference is taken relative to that, for the sum cannot be more accurate than its terms."""
    return float(np.abs(actual - expected).max() / max(np.abs(expected).max(), 0.01))


def complex_step(function: Callable[[NDArray], complex], value: NDArray) -> NDArray:
    """Derivative of a scalar function with respect to every entry of `value`; exact also next to the kink of relu."""
    derivative = np.empty_like(value)
    for position in np.ndindex(value.shape):
        moved = value.astype(complex)
        moved[position] += 1j * STEP
        derivative[position] = function(moved).imag / STEP
    return derivative


@settings(max_examples=40)
@given(case=cases(), weight_decay=st.sampled_from([0.0, 0.3]))
def test_every_gradient(case: Case, weight_decay: float) -> None:
    window = (case.tokens, case.targets, case.state, case.masks, weight_decay)
    _, gradients, _ = reference.gradients(case.config, case.parameters, *window)
    assert list(gradients) == list(case.parameters)
    for name, value in case.parameters.items():

        def loss(moved: NDArray, name: str = name) -> complex:
            return reference.loss(case.config, {**case.parameters, name: moved}, *window)

        assert gradient_error(gradients[name], complex_step(loss, value)) < GRADIENT_TOLERANCE, name


@settings(max_examples=40)
@given(case=cases(), seed=st.integers(0, 2**32 - 1))
def test_gradients_of_a_layer_with_respect_to_its_input_and_state(case: Case, seed: int) -> None:
    weights, x, state, *rest = layer_case(case)
    d_outputs = np.random.default_rng(seed).standard_normal((*x.shape[:2], state.shape[1]))  # (B, T, H)
    _, trace = layer_forward(weights, x, state, *rest)
    gradients = layer_backward(weights, x, trace, d_outputs, *rest)

    def loss_of_input(moved: NDArray) -> complex:
        return np.sum(layer_forward(weights, moved, state, *rest)[0] * d_outputs)

    def loss_of_state(moved: NDArray) -> complex:
        return np.sum(layer_forward(weights, x, moved, *rest)[0] * d_outputs)

    assert gradient_error(gradients.x, complex_step(loss_of_input, x)) < GRADIENT_TOLERANCE
    assert gradient_error(gradients.state, complex_step(loss_of_state, state)) < GRADIENT_TOLERANCE


@given(case=cases(), weight_decay=st.floats(0.0, 2.0))
def test_reported_loss_is_without_weight_decay(case: Case, weight_decay: float) -> None:
    reported, _, state = reference.gradients(
        case.config, case.parameters, case.tokens, case.targets, case.state, case.masks, weight_decay
    )
    logits, expected_state = run(case)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))  # (B, T, V)
    picked = np.take_along_axis(log_probabilities, case.targets[:, :, None], axis=-1)  # (B, T, 1)
    # Sums of a dozen numbers of order 1 in another order.
    assert reported == pytest.approx(-picked.sum(axis=1).mean(), rel=1e-12, abs=1e-13)
    np.testing.assert_array_equal(state, expected_state)


# ---------------------------------------------------------------------------------------------------------------------
# State
# ---------------------------------------------------------------------------------------------------------------------


@given(case=cases(), data=st.data())
def test_a_window_equals_its_parts_with_the_state_handed_over(case: Case, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, case.tokens.shape[1]))
    logits, state = run(case)
    carried, parts = case.state, []
    for times in (slice(None, cut), slice(cut, None)):
        if not case.tokens[:, times].size:
            continue
        masks = case.masks.columns(times)
        if parts:
            masks = masks._replace(carried=None)
        part, carried = run(case._replace(tokens=case.tokens[:, times], state=carried, masks=masks))
        parts.append(part)
    # The softmax multiplies matrices of another size, so that its sums may be taken in another order.
    np.testing.assert_allclose(np.concatenate(parts, axis=1), logits, rtol=0, atol=1e-14 * np.abs(logits).max())
    np.testing.assert_array_equal(carried, state)


@given(case=cases(), data=st.data())
def test_rows_do_not_depend_on_their_neighbours(case: Case, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(case.tokens) - 1))
    rows = slice(row, row + 1)
    logits, state = run(case)
    alone_logits, alone_state = run(
        case._replace(tokens=case.tokens[rows], state=[s[rows] for s in case.state], masks=case.masks.rows(rows))
    )
    # Matrices of another size: sums may be taken in another order, and micro-steps carry the difference on.
    np.testing.assert_allclose(alone_logits, logits[rows], rtol=0, atol=1e-13 * np.abs(logits).max())
    for alone, whole in zip(alone_state, state, strict=True):
        np.testing.assert_allclose(alone, whole[rows], rtol=0, atol=1e-13 * max(np.abs(whole).max(), 1e-3))


@given(case=cases())
def test_no_state_is_the_zero_state(case: Case) -> None:
    zero = reference.zero_state(case.config, len(case.tokens))
    assert [s.shape for s in zero] == [(len(case.tokens), case.config.hidden_size)] * case.config.num_layers
    for without, with_zero in zip(run(case._replace(state=None)), run(case._replace(state=zero)), strict=True):
        np.testing.assert_array_equal(without, with_zero)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_every_layer_has_a_state_of_its_own(layer: int) -> None:
    case = make_case(num_layers=3, length=1, masks="none")
    moved = [s + (i == layer) for i, s in enumerate(case.state)]
    before, after = run(case), run(case._replace(state=moved))
    assert not np.allclose(before[0], after[0])
    for i in range(3):  # a layer feels its own state and those below
        assert np.array_equal(before[1][i], after[1][i]) == (i < layer)


# ---------------------------------------------------------------------------------------------------------------------
# Faults that other implementations are known for
# ---------------------------------------------------------------------------------------------------------------------

CLOSED, OPEN = -1e4, 1e4  # biases at which a sigmoid is 0 or 1 exactly


def set_bias(case: Case, gate: str, value: float, level: int | slice = slice(None)) -> Case:
    """The case with the bias of one gate replaced, in all layers."""
    parameters = dict(case.parameters)
    for i in range(case.config.num_layers):
        bias = parameters[f"layers.{i}.bias"].copy()  # (L, G, H)
        bias[level, case.config.gates.index(gate)] = value
        parameters[f"layers.{i}.bias"] = bias
    return case._replace(parameters=parameters)


@given(case=cases(couple_gates=True, length=4, reset_probability=0.0))
def test_masks_do_not_leak_into_the_carry_path(case: Case) -> None:
    """With the transform gate closed the state is carried on bit for bit, whatever the masks."""
    _, state = run(set_bias(case, "t", CLOSED))
    np.testing.assert_array_equal(state, case.state)


@given(case=cases(couple_gates=False, length=4, reset_probability=0.0))
def test_closed_gates_forget_and_open_carry_keeps_without_coupling(case: Case) -> None:
    closed = set_bias(case, "t", CLOSED)
    np.testing.assert_array_equal(run(set_bias(closed, "c", OPEN))[1], case.state)
    np.testing.assert_array_equal(run(set_bias(closed, "c", CLOSED))[1], np.zeros_like(case.state))


@given(case=cases(couple_gates=True, num_layers=1))
def test_open_transform_gate_keeps_nothing_of_the_state(case: Case) -> None:
    """t = 1 leaves s = h, masked: the carry is 1 - t, not a sigmoid of its own, and t does multiply h."""
    weights, x, state, *rest = layer_case(set_bias(case, "t", OPEN))
    outputs, trace = layer_forward(weights, x, state, *rest)
    update_mask = 1.0 if rest[-1] is None else rest[-1]  # (B, H)
    np.testing.assert_array_equal(outputs, np.stack([steps[-1].h * update_mask for steps in trace], axis=1))


@given(case=cases(couple_gates=True))
def test_coupled_gates_sum_to_one(case: Case) -> None:
    weights, x, state, *rest = layer_case(case)
    for steps in layer_forward(weights, x, state, *rest)[1]:
        for step in steps:
            np.testing.assert_array_equal(step.c, 1.0 - step.t)


@pytest.mark.parametrize("couple_gates", [True, False])
@pytest.mark.parametrize("kind", ["recurrent_weight", "bias"])
def test_every_level_and_gate_has_weights_of_its_own(kind: str, couple_gates: bool) -> None:
    case = make_case(recurrence_depth=3, couple_gates=couple_gates, masks="none")
    logits, _ = run(case)
    name = f"layers.0.{kind}"
    seen = [logits]
    for level in range(3):
        for gate in range(case.config.num_gates):
            moved = case.parameters[name].copy()
            moved[level, gate] += 0.1
            seen.append(run(case._replace(parameters={**case.parameters, name: moved}))[0])
    for i, first in enumerate(seen):
        for second in seen[:i]:
            assert not np.allclose(first, second, atol=1e-6)


@given(case=cases(num_layers=1))
def test_input_enters_at_the_first_level_only(case: Case) -> None:
    """With the first level's gates set to carry only, the input has no effect at all."""
    case = set_bias(case, "t", CLOSED, level=0)
    if not case.config.couple_gates:
        case = set_bias(case, "c", OPEN, level=0)
    weights, x, state, *rest = layer_case(case)
    outputs, _ = layer_forward(weights, x, state, *rest)
    np.testing.assert_array_equal(layer_forward(weights, -3.0 * x, state, *rest)[0], outputs)


@given(case=cases(batch_size=1, length=4, recurrence_depth=3), data=st.data())
def test_a_dropped_unit_is_dropped_at_every_time_step_and_level(case: Case, data: st.DataObject) -> None:
    """Its outgoing weights get no gradient: the mask changes neither in time nor from level to level."""
    weights, x, state, *_, activation, _ = layer_case(case)
    gates = len(weights.input)
    input_mask = np.full((gates, 1, x.shape[2]), 2.0)
    state_mask = np.full((gates, 1, state.shape[1]), 1.25)
    gate = data.draw(st.integers(0, gates - 1))
    feature = data.draw(st.integers(0, x.shape[2] - 1))
    unit = data.draw(st.integers(0, state.shape[1] - 1))
    input_mask[gate, 0, feature] = state_mask[gate, 0, unit] = 0.0

    _, trace = layer_forward(weights, x, state, input_mask, state_mask, activation)
    d_outputs = np.ones((*x.shape[:2], state.shape[1]))
    gradients = layer_backward(weights, x, trace, d_outputs, input_mask, state_mask, activation).weights
    assert not gradients.input[gate, feature].any()
    assert not gradients.recurrent[:, gate, unit].any()
    if activation != "relu":  # whose gradients may vanish of themselves
        assert np.count_nonzero(gradients.recurrent.any(axis=(0, 3))) == gates * state.shape[1] - 1
        assert np.count_nonzero(gradients.input.any(axis=2)) == gates * x.shape[2] - 1


@given(case=cases(masks="separate"))
def test_equal_separate_masks_are_a_shared_mask(case: Case) -> None:
    weights, x, state, input_mask, state_mask, activation, _ = layer_case(case)
    first = [None if mask is None else mask[:1] for mask in (input_mask, state_mask)]
    repeated = [None if mask is None else np.repeat(mask, len(weights.input), axis=0) for mask in first]
    shared_outputs, _ = layer_forward(weights, x, state, *first, activation)
    np.testing.assert_array_equal(layer_forward(weights, x, state, *repeated, activation)[0], shared_outputs)


@pytest.mark.parametrize("gate", [0, 1, 2])
def test_every_gate_sees_its_own_mask(gate: int) -> None:
    case = make_case(couple_gates=False, masks="separate")
    logits, _ = run(case)
    for kind in ("input", "state"):
        masks = [mask.copy() for mask in getattr(case.masks, kind)]
        masks[0][gate] = 2.0
        assert not np.allclose(run(case._replace(masks=case.masks._replace(**{kind: masks})))[0], logits)


def test_a_mask_of_ones_is_no_mask() -> None:
    case = make_case(num_layers=2)
    ones = [np.ones_like(mask) for mask in case.masks.input], [np.ones_like(mask) for mask in case.masks.state]
    masks = VariationalMasks(np.ones_like(case.masks.embedding), *ones, np.ones_like(case.masks.output))
    np.testing.assert_array_equal(run(case._replace(masks=masks))[0], run(case._replace(masks=None))[0])


def test_a_projection_is_a_softmax_weight_in_two_factors() -> None:
    """Of the two, the chain rule gives the gradients."""
    case = make_case(embedding_size=4)
    projection, embedding = case.parameters["projection.weight"], case.parameters["embedding"]  # (H, E), (V, E)
    untied = case._replace(config=RHNConfig(**{**case.config.to_dict(), "tie_weights": False}))
    parameters = {name: p for name, p in case.parameters.items() if name != "projection.weight"}
    parameters["softmax.weight"] = projection @ embedding.T  # (H, V)
    assert list(case.parameters)[-1] == "projection.weight"
    loss, gradients, _ = reference.gradients(*case[:4], case.state, case.masks)
    untied_loss, expected, _ = reference.gradients(untied.config, parameters, *case[2:])
    assert loss == pytest.approx(untied_loss, rel=1e-14)
    d_softmax = expected["softmax.weight"]  # (H, V)
    np.testing.assert_allclose(gradients["projection.weight"], d_softmax @ embedding, rtol=1e-12, atol=1e-14)
    both = expected["embedding"] + d_softmax.T @ projection  # (V, E)
    np.testing.assert_allclose(gradients["embedding"], both, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("couple_gates", [True, False])
def test_a_dropped_update_leaves_the_carry_alone(couple_gates: bool) -> None:
    case = make_case(couple_gates=couple_gates, recurrence_depth=1, length=1, masks="none")
    nothing = case._replace(masks=VariationalMasks(update=[np.zeros((3, 6))]))
    weights, x, state, *_ = layer_case(case)
    ((step,),) = layer_forward(weights, x, state)[1]
    np.testing.assert_array_equal(run(nothing)[1][0], state * step.c)


def test_a_row_is_reset_in_every_layer() -> None:
    case = make_case(num_layers=2, masks="none")
    carried = case._replace(masks=VariationalMasks(carried=np.array([1.0, 0.0, 1.0])))
    zeroed = [s * np.array([[1.0], [0.0], [1.0]]) for s in case.state]
    np.testing.assert_array_equal(run(carried)[0], run(case._replace(state=zeroed))[0])


def test_tied_weights_are_one_tensor() -> None:
    """The tied gradient is the sum of what embedding and softmax get when they are apart."""
    tied = make_case()
    untied = tied._replace(
        config=RHNConfig(**{**tied.config.to_dict(), "tie_weights": False}),
        parameters={**tied.parameters, "softmax.weight": tied.parameters["embedding"].T},
    )
    loss, gradients, _ = reference.gradients(*tied[:4], tied.state, tied.masks)
    untied_loss, untied_gradients, _ = reference.gradients(*untied[:4], untied.state, untied.masks)
    assert loss == untied_loss
    np.testing.assert_allclose(
        gradients["embedding"],
        untied_gradients["embedding"] + untied_gradients["softmax.weight"].T,
        rtol=1e-13,
        atol=1e-15,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Update
# ---------------------------------------------------------------------------------------------------------------------


@given(case=cases(), max_grad_norm=st.floats(1e-3, 1e3), learning_rate=st.floats(0.0, 2.0))
def test_update_clips_the_global_norm(case: Case, max_grad_norm: float, learning_rate: float) -> None:
    _, gradients, _ = reference.gradients(*case[:4], case.state, case.masks, 0.1)
    everything = np.concatenate([g.ravel() for g in gradients.values()])
    norm = math.sqrt(math.fsum(everything**2))
    assert reference.global_norm(gradients) == pytest.approx(norm, rel=1e-14)
    new = reference.sgd_update(case.parameters, gradients, learning_rate, max_grad_norm)
    for name, value in case.parameters.items():
        clipped = gradients[name] * min(1.0, max_grad_norm / norm)
        np.testing.assert_allclose(new[name], value - learning_rate * clipped, rtol=1e-12, atol=1e-14)


def test_gradients_of_repeated_tokens_are_summed_before_the_norm() -> None:
    """One token everywhere, against as many tokens as positions, all embedded alike."""
    case = make_case(tie_weights=False, masks="none")
    alike = {**case.parameters, "embedding": np.ones_like(case.parameters["embedding"])}
    once = case._replace(parameters=alike, tokens=np.arange(case.tokens.size).reshape(case.tokens.shape))
    repeated = once._replace(tokens=np.full_like(case.tokens, 3))
    _, apart, _ = reference.gradients(*once[:4], case.state)
    _, together, _ = reference.gradients(*repeated[:4], case.state)

    summed = np.zeros_like(apart["embedding"])
    summed[3] = apart["embedding"].sum(axis=0)
    np.testing.assert_allclose(together["embedding"], summed, rtol=1e-13, atol=1e-15)
    expected = reference.global_norm({**apart, "embedding": summed})
    assert reference.global_norm(together) == pytest.approx(expected, rel=1e-13)
    assert reference.global_norm(apart) != pytest.approx(expected, rel=1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# Numbers and input
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
@pytest.mark.parametrize("couple_gates", [True, False])
def test_stays_finite_when_everything_saturates(activation: str, couple_gates: bool) -> None:
    scale = 1e4 if activation != "relu" else 10.0  # relu grows without bound by nature
    case = make_case(activation=activation, couple_gates=couple_gates, length=10)
    case = case._replace(parameters={name: scale * value for name, value in case.parameters.items()})
    loss, gradients, state = reference.gradients(*case[:4], case.state, case.masks)
    assert np.isfinite(loss)
    assert np.isfinite(state).all()
    assert all(np.isfinite(g).all() for g in gradients.values())


def test_refuses_what_does_not_fit() -> None:
    case = make_case()
    config, parameters, tokens, targets, state, masks = case
    window = (config, parameters, tokens)
    with pytest.raises(ValueError, match="targets of shape"):
        reference.gradients(*window, targets[:1], state, masks)
    with pytest.raises(ValueError, match="targets of shape"):
        reference.loss(*window, targets[:1], state, masks)
    with pytest.raises(ValueError, match="targets from"):
        reference.gradients(*window, targets + config.vocab_size, state, masks)
    with pytest.raises(ValueError, match="tokens from -1"):
        reference.forward(config, parameters, np.full_like(tokens, -1))
    with pytest.raises(
        ValueError,
        match=r"state of shapes \[\(3, 6\), \(3, 6\)\] is not accepted",
    ):
        reference.forward(*window, state * 2, masks)
    with pytest.raises(ValueError, match=r"masks\.output of shape"):
        reference.forward(*window, state, masks._replace(output=masks.output[:1]))
    with pytest.raises(ValueError, match=r"missing softmax\.bias"):
        reference.forward(config, {k: v for k, v in parameters.items() if k != "softmax.bias"}, tokens)
