"""SPEC.md sections 2, 3 and 5: the reference against every fault that other implementations are known for. What the
authors' programs say is in test_authors.py."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, make_case
from hypothesis import given
from hypothesis import strategies as st
from reference_cases import cases, layer_case, run

from rhn import RHNConfig, VariationalMasks
from rhn.spec import reference
from rhn.spec.reference import layer_backward, layer_forward

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
