"""SPEC.md sections 2 and 3: the reference's forward pass against arithmetic by hand, its state, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cases import Case, make_case
from hypothesis import given
from hypothesis import strategies as st
from reference_cases import cases, run

from rhn import RHNConfig, VariationalMasks
from rhn.spec import reference
from rhn.spec.reference import LayerWeights, layer_forward

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
