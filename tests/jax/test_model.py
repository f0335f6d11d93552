"""RHNLanguageModel as its users meet it; what it computes is compared with the reference in test_backend."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from cases import GENERATED, generating_case, make_case
from flax import nnx

import rhn
from rhn_jax import RHNLanguageModel

CONFIGS = [
    rhn.RHNConfig(vocab_size=7, hidden_size=4, recurrence_depth=2),
    rhn.RHNConfig(7, 4, 2, num_layers=2, embedding_size=3, tie_weights=False, couple_gates=False),
]


def make_model(config: rhn.RHNConfig, **options: Any) -> RHNLanguageModel:
    """Without values: drawing them is what takes time."""
    return nnx.eval_shape(lambda: RHNLanguageModel(config, **options, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("config", CONFIGS)
def test_parameters_round_trip_bit_for_bit(config: rhn.RHNConfig) -> None:
    parameters = rhn.initial_parameters(config, seed=3)
    model = make_model(config)
    model.load_parameters(parameters)
    exported = model.export_parameters()
    assert list(exported) == list(parameters)
    for name, value in parameters.items():
        np.testing.assert_array_equal(exported[name], value)
        assert exported[name].flags.c_contiguous
        assert exported[name].flags.writeable


@pytest.mark.parametrize("config", CONFIGS)
def test_initial_values_follow_the_options(config: rhn.RHNConfig) -> None:
    parameters = RHNLanguageModel(config, init_scale=0.5, transform_bias=-3.0, rngs=nnx.Rngs(0)).export_parameters()
    assert {name: p.shape for name, p in parameters.items()} == rhn.parameter_shapes(config)
    np.testing.assert_array_equal(parameters["layers.0.bias"][:, 1], np.float32(-3.0))
    for name in ("embedding", "layers.0.recurrent_weight", "softmax.bias"):
        assert 0.2 < abs(parameters[name]).max() <= 0.5


def test_tied_weights_are_one_parameter() -> None:
    count = sum(p.size for p in jax.tree.leaves(nnx.state(make_model(CONFIGS[0]), nnx.Param)))
    assert count == rhn.parameter_count(CONFIGS[0])


def test_parameters_that_do_not_fit_say_so() -> None:
    parameters = {**rhn.initial_parameters(CONFIGS[0], seed=3), "softmax.weight": np.zeros((4, 7))}
    with pytest.raises(ValueError, match=r"not expected softmax\.weight"):
        make_model(CONFIGS[0]).load_parameters(parameters)


def test_options_reach_the_layer() -> None:
    model = make_model(CONFIGS[1], recurrence="plain", param_dtype="bfloat16")
    assert model.rhn.recurrence == "plain"
    assert [cell.couple_gates for cell in model.rhn.cells] == [False, False]
    assert {p.dtype.name for p in jax.tree.leaves(nnx.state(model))} == {"bfloat16"}


def test_one_model_of_the_graph_and_parameters_of_another() -> None:
    case = make_case()
    model = make_model(case.config)
    model.load_parameters(case.parameters)
    run = nnx.jit(lambda model: model(case.tokens))
    graph, params = nnx.split(model)
    logits, (state,) = run(nnx.merge(graph, params))
    expected, (expected_state,) = run(model)
    np.testing.assert_array_equal(logits, expected)
    np.testing.assert_array_equal(state, expected_state)
    assert logits.shape == (*case.tokens.shape, case.config.vocab_size)


def test_generates_what_the_reference_does() -> None:
    config, parameters = generating_case()
    model = RHNLanguageModel(config, rngs=nnx.Rngs(0))
    model.load_parameters(parameters)
    assert model.generate([1, 2], 10, seed=4, top_k=5) == GENERATED
    with pytest.raises(ValueError, match="temperature=0 is not accepted: expected a number above 0"):
        model.generate([1, 2], 10, temperature=0)
