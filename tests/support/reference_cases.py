"""Small models of every architecture for tests of the reference, drawn by Hypothesis."""

from __future__ import annotations

from typing import Any

from cases import Case, make_case
from hypothesis import strategies as st
from numpy.typing import NDArray

from rhn import VariationalMasks
from rhn.spec import reference
from rhn.spec.reference import LayerWeights

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
