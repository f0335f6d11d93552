"""What a training step costs, counted rather than timed: loops, matrix products, traces, waiting for the device."""

from __future__ import annotations

import importlib
from collections import Counter

import pytest
import tensorflow as tf
from cases import make_case, relative_error

import rhn
from rhn.spec import reference
from rhn_tf import fast_recurrence
from rhn_tf.backend import TensorFlowBackend

FAST_RECURRENCE = importlib.import_module("rhn_tf.fast_recurrence")  # in the package, that name is the function
TOLERANCE = 1e-10  # relative; as in test_backend.py
LENGTH, BATCH_SIZE, HIDDEN_SIZE, NUM_GATES = 5, 3, 4, 2


def count_operations(
    depth: int, num_masks: int, recompute: bool, **masks: tf.Tensor
) -> tuple[Counter[str], list[Counter[str]]]:
    """Operations of the recurrence with its gradients: outside of loops, and in the body of every loop in order."""
    width = NUM_GATES * HIDDEN_SIZE
    shapes = [(LENGTH, BATCH_SIZE, width), (BATCH_SIZE, HIDDEN_SIZE), (depth, width), *[(HIDDEN_SIZE, width)] * depth]
    mask = tf.ones((num_masks, BATCH_SIZE, HIDDEN_SIZE)) if num_masks else None

    @tf.function(input_signature=[tf.TensorSpec(shape) for shape in shapes])
    def gradients(projected: tf.Tensor, state: tf.Tensor, biases: tf.Tensor, *weights: tf.Tensor) -> list[tf.Tensor]:
        outputs = fast_recurrence(projected, state, weights, biases, mask, recompute=recompute, **masks)
        return tf.gradients(outputs, [projected, state, biases, *weights])

    graph = gradients.get_concrete_function().graph
    body_of = {function.signature.name: function.node_def for function in graph.as_graph_def().library.function}
    loops = [node for node in graph.as_graph_def().node if node.op in ("While", "StatelessWhile")]
    bodies = [Counter(node.op for node in body_of[loop.attr["body"].func.name]) for loop in loops]
    return Counter(operation.type for operation in graph.get_operations()), bodies


@pytest.mark.parametrize(("num_masks", "blocks"), [(0, 1), (1, 1), (NUM_GATES, NUM_GATES)])
def test_products_of_the_recurrence(num_masks: int, blocks: int) -> None:
    """Per block of gates that share a mask L products in each loop, and L outside: the gradients of the weights."""
    depth = 3
    outside, (forward, backward) = count_operations(depth, num_masks, recompute=False)
    assert forward["MatMul"] == backward["MatMul"] == outside["MatMul"] == depth * blocks


def test_an_update_mask_costs_multiplications_only() -> None:
    """One per micro-step in the forward, and two in the backward; without it there is none."""
    depth = 3
    _, (forward, backward) = count_operations(depth, num_masks=1, recompute=False)
    assert forward["Mul"] == 3 * depth  # of the state by its mask, h * t and s * c
    update_mask = tf.ones((BATCH_SIZE, HIDDEN_SIZE))
    on_outside, (on, on_backward) = count_operations(depth, num_masks=1, recompute=False, update_mask=update_mask)
    assert on["Mul"] == 4 * depth
    assert on_backward["Mul"] - backward["Mul"] == 2 * depth
    assert (on["MatMul"], on_backward["MatMul"], on_outside["MatMul"]) == (depth, depth, depth)


def test_padding_costs_selections_once_per_time_step() -> None:
    depth = 3
    without, (forward, backward) = count_operations(depth, num_masks=1, recompute=False)
    assert not (without | forward | backward)["SelectV2"]
    outside, (forward_held, backward_held) = count_operations(
        depth, num_masks=1, recompute=False, valid=tf.ones((LENGTH, BATCH_SIZE, 1), tf.bool)
    )
    assert (forward_held["SelectV2"], backward_held["SelectV2"]) == (1, 2)
    assert (forward_held["MatMul"], backward_held["MatMul"], outside["MatMul"]) == (depth, depth, depth)
    assert forward_held["TensorListSetItem"] == forward["TensorListSetItem"]


def test_recomputing_costs_one_more_product_per_micro_step_and_keeps_no_gates() -> None:
    depth = 3
    outside, (forward, backward) = count_operations(depth, num_masks=1, recompute=True)
    assert (forward["MatMul"], backward["MatMul"], outside["MatMul"]) == (depth, 2 * depth, depth)
    assert forward["TensorListSetItem"] == depth  # the states; with the gates it is twice that
    _, (keeping, _) = count_operations(depth, num_masks=1, recompute=False)
    assert keeping["TensorListSetItem"] == 2 * depth


def test_a_long_window_has_gradients_of_gates_in_one_slice_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FAST_RECURRENCE, "_SLICE_ROWS", BATCH_SIZE)
    depth = 3
    outside, (forward, backward) = count_operations(depth, num_masks=1, recompute=False)
    assert (forward["MatMul"], outside["MatMul"]) == (depth, 0)
    # A loop over slices: in it the loop over time, and after that, each slice's part of the weights' gradients.
    assert (backward["StatelessWhile"], backward["MatMul"], backward["TensorListSetItem"]) == (1, depth, 1)


@pytest.fixture
def values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks a tensor for its value, and so waits for the device, is told."""

    def refuse(*_: object) -> None:
        raise AssertionError("the value of a tensor is asked for")

    for method in ("numpy", "__array__", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(type(tf.constant(0)), method, refuse)


@pytest.mark.usefixtures("values_are_refused")
def test_training_waits_for_no_value_and_is_traced_once_per_shape_and_kind_of_masks() -> None:
    case = make_case(recurrence_depth=1, length=4, batch_size=2)
    model = TensorFlowBackend().build(case.config, case.parameters, "float64", "cpu")
    state = model.zero_state(2)
    for epoch in range(2):
        for step, length in enumerate((4, 4, 3)):  # the last window of an epoch is shorter
            tokens, targets = case.tokens[:, :length], case.targets[:, :length]
            rates, beyond = rhn.DropRates(0.25, 0.4, 0.3, 0.35, 0.2), {"time_masks": True, "reset_probability": 0.5}
            masks = rhn.sample_masks(case.config, tokens, rates, 1, step, **beyond)
            loss, state = model.train_step(tokens, targets, state, masks, 0.1 / (epoch + 1), 0.01 * step, 5.0 + step)
            assert all(tf.is_tensor(tensor) for tensor in (loss, model.last_grad_norm, *state))
    traces = model._call_train_step.experimental_get_tracing_count
    assert traces() == 2
    for _ in range(2):
        _, state = model.train_step(case.tokens, case.targets, state, None, 0.1, 0.0, 5.0)
    assert traces() == 3


def test_evaluation_is_traced_once_and_then_once_for_all_other_shapes() -> None:
    case = make_case(recurrence_depth=1, length=6, batch_size=2)
    model = TensorFlowBackend().build(case.config, case.parameters, "float64", "cpu")
    for length in (6, 6, 5, 4, 3, 1):
        tokens, targets = case.tokens[:, :length], case.targets[:, :length]
        nll, _ = model.evaluate_step(tokens, targets, case.state)
        logits, _ = reference.forward(case.config, case.parameters, tokens, case.state)
        assert relative_error(nll, reference.cross_entropy(logits, targets).sum()) < TOLERANCE
    assert model._call_log_likelihoods.experimental_get_tracing_count() == 2


def test_windows_of_all_lengths_are_one_program() -> None:
    case = make_case(recurrence_depth=1, length=3, batch_size=2)
    model = TensorFlowBackend().build(case.config, case.parameters, "float64", "cpu")
    for length in (3, 2, 1):
        model.train_step(case.tokens, case.targets, case.state, case.masks, 0.1, 0.0, 5.0, length=length)
    assert model._call_train_step.experimental_get_tracing_count() == 1


def test_a_score_makes_the_logits_of_a_few_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(recurrence_depth=1, length=3, batch_size=2)
    model = TensorFlowBackend().build(case.config, case.parameters, "float64", "cpu")
    monkeypatch.setattr("rhn.port_tools.MOST_LOGITS", 4 * case.config.vocab_size)
    rows: list[int] = []
    scores_of_rows = model._call_scores
    monkeypatch.setattr(
        model, "_call_scores", lambda top, targets: rows.append(len(top)) or scores_of_rows(top, targets)
    )
    nll, _ = model.evaluate_step(case.tokens, case.targets, case.state)
    assert rows == [4, 2]
    logits, _ = reference.forward(case.config, case.parameters, case.tokens, case.state)
    assert relative_error(nll, reference.cross_entropy(logits, case.targets).sum()) < TOLERANCE
