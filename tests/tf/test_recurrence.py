"""The equations as they are written for reading, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from cases import make_case, relative_error

from rhn.spec import reference
from rhn_tf import plain_recurrence
from rhn_tf.recurrence import masked_linear, micro_step, time_step
from rhn_tf.weights import cell_from_spec

TOLERANCE = 1e-13  # relative, float64: the same sums in another order


def test_a_micro_step_mixes_candidate_and_state() -> None:
    s, z = tf.constant([[0.5, -1.0]]), tf.constant([[0.0, 0.0, 0.0, 100.0]])  # (1, H), (1, 2 * H)
    np.testing.assert_allclose(micro_step(s, z, tf.tanh), [[0.25, 0.0]])  # half of s; nothing of it
    uncoupled = tf.concat([z, [[100.0, 100.0]]], axis=1)  # (1, 3 * H): all of s besides
    np.testing.assert_allclose(micro_step(s, uncoupled, tf.sigmoid), [[0.5 * 0.5 + 0.5, 0.5 - 1.0]])


@pytest.mark.parametrize("couple_gates", [True, False])
@pytest.mark.parametrize("masks", ["shared", "separate", "none"])
def test_equals_reference(masks: str, couple_gates: bool) -> None:
    case = make_case(masks=masks, couple_gates=couple_gates)
    embedded = case.parameters["embedding"][case.tokens]  # (B, T, E)
    weights = [case.parameters[f"layers.0.{name}"] for name in ("input_weight", "recurrent_weight", "bias")]
    input_mask, state_mask, _ = case.masks.of_layer(0)
    expected, _ = reference.layer_forward(
        reference.LayerWeights(*weights), embedded, case.state[0], input_mask, state_mask
    )

    input_weight, *recurrent_weights, bias = map(tf.constant, cell_from_spec(case.parameters, "layers.0"))
    projected = masked_linear(tf.constant(embedded.swapaxes(0, 1)), input_weight, input_mask)  # (T, B, G*H)
    arguments = (recurrent_weights, bias, None if state_mask is None else tf.constant(state_mask))
    outputs = plain_recurrence(projected, tf.constant(case.state[0]), *arguments)  # (T, B, H)
    assert relative_error(tf.transpose(outputs, (1, 0, 2)), expected) < TOLERANCE
    first = time_step(tf.constant(case.state[0]), projected[0], *arguments)  # (B, H)
    assert relative_error(first, outputs[0]) < TOLERANCE
