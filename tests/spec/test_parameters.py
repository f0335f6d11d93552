"""SPEC.md 1.3 and 1.4: names, shapes, counts and initial values of the parameters."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rhn import RHNConfig, check_parameters, initial_parameters, parameter_count, parameter_shapes

CONFIG = RHNConfig(vocab_size=50, hidden_size=40, recurrence_depth=3, num_layers=2, couple_gates=False)
INITIAL_DIGEST = "2a52a5d5602c43cd5e9818eae9660e6d1705b3be9888211dd689c14f8edcfc92"

# Published number of parameters in millions, as printed (paper, tables 1 to 3): Penn Treebank, vocabulary 10000.
PTB_COUNTS = [  # depth, hidden size, untied, tied
    (1, 1275, "32.015", "19.265"),
    (2, 1180, "31.969", "20.169"),
    (3, 1110, "32.073", "20.973"),
    (4, 1050, "32.043", "21.543"),
    (5, 1000, "32.020", "22.020"),
    (6, 960, "32.124", "22.524"),
    (7, 920, "31.965", "22.765"),
    (8, 890, "32.082", "23.182"),
    (9, 860, "32.017", "23.417"),
    (10, 830, "31.782", "23.482"),
]
# Characters: untied, the embedding as wide as the vocabulary.
CHARACTER_COUNTS = [  # vocabulary, depth, hidden size, millions
    (205, 5, 1500, "23.480"),
    (205, 10, 1000, "20.677"),
    (205, 10, 1500, "45.994730"),
    (27, 10, 1000, "20.102"),
    (27, 10, 1500, "45.152"),
]


def in_millions(count: int, as_printed: str) -> str:
    """`count` with as many digits as the paper prints."""
    digits = len(as_printed.partition(".")[2])
    return f"{count / 1e6:.{digits}f}"


@pytest.mark.parametrize(("depth", "hidden_size", "untied", "tied"), PTB_COUNTS)
def test_counts_published_for_ptb(depth: int, hidden_size: int, untied: str, tied: str) -> None:
    for tie_weights, expected in ((False, untied), (True, tied)):
        config = RHNConfig(10000, hidden_size, depth, tie_weights=tie_weights)
        assert in_millions(parameter_count(config), expected) == expected


@pytest.mark.parametrize(("vocab_size", "depth", "hidden_size", "expected"), CHARACTER_COUNTS)
def test_counts_published_for_characters(vocab_size: int, depth: int, hidden_size: int, expected: str) -> None:
    config = RHNConfig(vocab_size, hidden_size, depth, embedding_size=vocab_size, tie_weights=False)
    assert in_millions(parameter_count(config), expected) == expected


def test_counts_known_exactly() -> None:
    assert parameter_count(RHNConfig(10000, 830, 10)) == 23_482_400
    assert parameter_count(RHNConfig(205, 1500, 10, embedding_size=205, tie_weights=False)) == 45_994_730


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Against a count by hand: embedding, input weights, recurrent weights and one bias per gate and level, softmax.
        ({}, 7 * 4 + 2 * 4 * 4 + 3 * 2 * (4 * 4 + 4) + 7),
        ({"couple_gates": False}, 7 * 4 + 3 * 4 * 4 + 3 * 3 * (4 * 4 + 4) + 7),
        ({"num_layers": 2}, 7 * 4 + 2 * (2 * 4 * 4 + 3 * 2 * (4 * 4 + 4)) + 7),
        ({"embedding_size": 5, "tie_weights": False}, 7 * 5 + 2 * 5 * 4 + 3 * 2 * (4 * 4 + 4) + 4 * 7 + 7),
        ({"embedding_size": 5}, 7 * 5 + 2 * 5 * 4 + 3 * 2 * (4 * 4 + 4) + 7 + 4 * 5),
        ({"share_gate_masks": False, "activation": "relu"}, 7 * 4 + 2 * 4 * 4 + 3 * 2 * (4 * 4 + 4) + 7),
    ],
)
def test_there_is_one_bias_per_gate_and_level_and_no_unused_weight(options: dict[str, object], expected: int) -> None:
    config = RHNConfig(**{"vocab_size": 7, "hidden_size": 4, "recurrence_depth": 3, **options})
    assert parameter_count(config) == expected
    assert sum(p.size for p in initial_parameters(config, seed=1).values()) == expected


def test_shapes_and_order() -> None:
    config = RHNConfig(
        11, 6, 3, num_layers=2, embedding_size=5, tie_weights=False, couple_gates=False, share_gate_masks=False
    )
    assert list(parameter_shapes(config).items()) == [
        ("embedding", (11, 5)),
        ("layers.0.input_weight", (3, 5, 6)),
        ("layers.0.recurrent_weight", (3, 3, 6, 6)),
        ("layers.0.bias", (3, 3, 6)),
        ("layers.1.input_weight", (3, 6, 6)),
        ("layers.1.recurrent_weight", (3, 3, 6, 6)),
        ("layers.1.bias", (3, 3, 6)),
        ("softmax.weight", (6, 11)),
        ("softmax.bias", (11,)),
    ]
    assert "softmax.weight" not in parameter_shapes(RHNConfig(11, 6, 3))
    assert list(parameter_shapes(RHNConfig(11, 6, 3, embedding_size=5)).items())[-1] == ("projection.weight", (6, 5))


def test_initial_values_are_frozen() -> None:
    """Whoever changes this digest changes every run that was ever recorded."""
    digest = hashlib.sha256()
    for name, value in initial_parameters(CONFIG, seed=7).items():
        digest.update(name.encode() + value.tobytes())
    assert digest.hexdigest() == INITIAL_DIGEST


@given(seed=st.integers(0, 2**64 - 1), init_scale=st.floats(1e-3, 10.0), transform_bias=st.floats(-10.0, 10.0))
def test_initial_values_are_uniform_but_for_the_transform_bias(
    seed: int, init_scale: float, transform_bias: float
) -> None:
    parameters = initial_parameters(CONFIG, seed, init_scale, transform_bias)
    assert {value.dtype for value in parameters.values()} == {np.dtype(np.float32)}
    assert {name: value.shape for name, value in parameters.items()} == parameter_shapes(CONFIG)
    for name, value in parameters.items():
        drawn = value
        if name.startswith("layers.") and name.endswith(".bias"):
            assert (value[:, 1] == np.float32(transform_bias)).all()  # at every level, for t alone
            drawn = np.delete(value, 1, axis=1)
        assert np.abs(drawn).max() <= np.float32(init_scale)
        assert np.unique(drawn).size > 0.97 * drawn.size  # two float32 draws may well be equal
        # Mean and mean square of n numbers uniform in (-1, 1): standard deviations below; six of them.
        scaled = drawn.astype(np.float64) / init_scale
        assert abs(scaled.mean()) < 6 * math.sqrt(1 / 3 / drawn.size)
        assert abs(np.square(scaled).mean() - 1 / 3) < 6 * math.sqrt(4 / 45 / drawn.size)


@given(seed=st.integers(0, 2**64 - 1), other_bias=st.floats(-10.0, 10.0))
def test_a_number_for_the_other_biases_leaves_all_else_alone(seed: int, other_bias: float) -> None:
    parameters = initial_parameters(CONFIG, seed, transform_bias=-3.0, other_bias=other_bias)
    usual = initial_parameters(CONFIG, seed, transform_bias=-3.0)
    for name, value in parameters.items():
        if name == "softmax.bias":
            assert (value == np.float32(other_bias)).all()
        elif name.endswith(".bias"):
            assert (value[:, 1] == -3.0).all()
            assert (value[:, [0, 2]] == np.float32(other_bias)).all()
        else:
            np.testing.assert_array_equal(value, usual[name])


def test_initializers_are_of_the_matrices() -> None:
    config = RHNConfig(120, 40, 3, embedding_size=30, tie_weights=False)
    usual = initial_parameters(config, 3)
    for initializer, scale in (("normal", lambda shape: 0.1), ("fan_in", lambda shape: shape[-2] ** -0.5)):
        parameters = initial_parameters(config, 3, 0.1, initializer=initializer)
        for name, value in parameters.items():
            if name.endswith("bias"):
                np.testing.assert_array_equal(value, initial_parameters(config, 3, 0.1)[name])
                continue
            wanted = 30**-0.5 if (initializer, name) == ("fan_in", "embedding") else scale(value.shape)
            scaled = value.astype(np.float64) / wanted
            # Mean, mean square and mean fourth power of n standard normal numbers; six standard deviations.
            for power, moment, variance in ((1, 0, 1), (2, 1, 2), (4, 3, 96)):
                assert abs((scaled**power).mean() - moment) < 6 * math.sqrt(variance / value.size)
    wider = initial_parameters(config, 3, embedding_init_scale=0.1)
    np.testing.assert_allclose(wider.pop("embedding"), usual["embedding"] * 2.5, rtol=1e-6)
    for name, value in wider.items():
        np.testing.assert_array_equal(value, usual[name])


def test_every_tensor_and_every_seed_is_drawn_apart() -> None:
    drawn = [
        value.ravel()
        for seed in (1, 2)
        for name, value in initial_parameters(CONFIG, seed).items()
        if not name.endswith("bias")
    ]
    everything = np.concatenate(drawn)
    # Two of n float32 numbers may well be equal, a repeated tensor would be thousands.
    assert np.unique(everything).size > 0.99 * everything.size


def test_same_seed_same_values() -> None:
    first, second = initial_parameters(CONFIG, 3), initial_parameters(CONFIG, 3)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
        assert not np.shares_memory(value, second[name])


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("init_scale", -0.1, "a number of at least 0"),
        ("init_scale", math.nan, "a number of at least 0"),
        ("init_scale", "0.1", "a number of at least 0"),
        ("transform_bias", math.inf, "a finite number"),
        ("transform_bias", None, "a finite number"),
        ("initializer", "orthogonal", "one of uniform, normal, fan_in"),
        ("embedding_init_scale", -0.1, "a number of at least 0"),
        ("other_bias", "zero", "'uniform' or a finite number"),
        ("other_bias", math.nan, "'uniform' or a finite number"),
        ("other_bias", True, "'uniform' or a finite number"),
        ("seed", -1, "an integer from 0 to 2**64 - 1"),
    ],
)
def test_refuses_impossible_values(name: str, value: object, accepted: str) -> None:
    with pytest.raises(ValueError, match="is not accepted") as caught:
        initial_parameters(CONFIG, **{"seed": 1, name: value})
    assert str(caught.value) == f"{name}={value!r} is not accepted: expected {accepted}"


def test_check_names_what_is_missing_and_what_is_too_many() -> None:
    parameters = initial_parameters(CONFIG, 1)
    check_parameters(CONFIG, parameters)
    parameters["softmax.weight"] = parameters.pop("embedding")
    with pytest.raises(ValueError, match=r"missing embedding; not expected softmax\.weight"):
        check_parameters(CONFIG, parameters)


def test_check_names_the_tensor_of_wrong_shape() -> None:
    parameters = initial_parameters(CONFIG, 1)
    parameters["layers.1.bias"] = parameters["layers.1.bias"][0]
    with pytest.raises(ValueError, match=r"layers\.1\.bias has shape \(3, 40\), the configuration needs \(3, 3, 40\)"):
        check_parameters(CONFIG, parameters)
