"""SPEC.md 1.1 and 1.2: what a configuration accepts, what it says about what it refuses, what it derives."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from rhn import RHNConfig


def make(**options: object) -> RHNConfig:
    return RHNConfig(**{"vocab_size": 11, "hidden_size": 6, "recurrence_depth": 2, **options})


def test_defaults_are_those_of_the_best_ptb_model() -> None:
    config = RHNConfig(10000, 830, 10)
    assert config.to_dict() == {
        "vocab_size": 10000,
        "hidden_size": 830,
        "recurrence_depth": 10,
        "num_layers": 1,
        "embedding_size": None,
        "tie_weights": True,
        "couple_gates": True,
        "share_gate_masks": True,
        "activation": "tanh",
    }


SIZES = ("vocab_size", "hidden_size", "recurrence_depth", "num_layers", "embedding_size")


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [0, -1, 2.0, "3", True, np.float64(2), np.True_, np.array([2]), [2]], ids=repr)
def test_sizes_are_positive_integers(name: str, value: object) -> None:
    with pytest.raises(ValueError, match="expected an integer of at least 1") as caught:
        make(**{name: value})
    assert str(caught.value).startswith(f"{name}={value!r} ")


@pytest.mark.parametrize("name", [name for name in SIZES if name != "embedding_size"])
def test_only_the_embedding_size_may_be_left_open(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=None is not accepted"):
        make(**{name: None})


@pytest.mark.parametrize("name", ["tie_weights", "couple_gates", "share_gate_masks"])
@pytest.mark.parametrize("value", [1, 0, None, "True"], ids=repr)
def test_switches_are_booleans(name: str, value: object) -> None:
    with pytest.raises(ValueError, match="expected True or False") as caught:
        make(**{name: value})
    assert str(caught.value).startswith(f"{name}={value!r} ")


@pytest.mark.parametrize("value", ["Tanh", "gelu", "", None, ["tanh"]], ids=repr)
def test_activation_is_one_of_three(value: object) -> None:
    with pytest.raises(ValueError, match="expected one of tanh, sigmoid, relu") as caught:
        make(activation=value)
    assert str(caught.value).startswith(f"activation={value!r} ")


def test_tied_weights_of_another_width_are_projected() -> None:
    assert make(embedding_size=5).has_projection
    assert make(embedding_size=5).embedding_width == 5
    assert not make(embedding_size=6).has_projection
    assert not make().has_projection
    assert not make(embedding_size=5, tie_weights=False).has_projection


@pytest.mark.parametrize(
    ("couple_gates", "share_gate_masks", "gates", "num_gate_masks"),
    [
        (True, True, ("h", "t"), 1),
        (True, False, ("h", "t"), 2),
        (False, True, ("h", "t", "c"), 1),
        (False, False, ("h", "t", "c"), 3),
    ],
)
def test_gates_and_masks(
    couple_gates: bool, share_gate_masks: bool, gates: tuple[str, ...], num_gate_masks: int
) -> None:
    config = make(couple_gates=couple_gates, share_gate_masks=share_gate_masks)
    assert config.gates == gates
    assert config.num_gates == len(gates)
    assert config.num_gate_masks == num_gate_masks


def test_only_the_first_layer_sees_the_embedding_width() -> None:
    config = make(num_layers=3, embedding_size=4, tie_weights=False)
    assert [config.input_size(layer) for layer in range(3)] == [4, 6, 6]


def test_survives_json() -> None:
    config = make(vocab_size=np.int64(11), embedding_size=np.uint8(4), tie_weights=False, activation="relu")
    assert RHNConfig(**json.loads(json.dumps(config.to_dict()))) == config


def test_is_immutable_and_hashable() -> None:
    config = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.hidden_size = 7  # type: ignore[misc]
    assert len({config, make(), make(hidden_size=7)}) == 2


FOREIGN = (
    *(np.array([1, 2]), np.array(3), [], {}, set(), object(), "x", b"x", None, 1j, np.complex64(1), np.bool_(True)),
    *(float("nan"), float("inf"), np.float64(3), 10**400, -(10**5000), True, -1, 0, range(3), int, Ellipsis),
)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(RHNConfig)])
@pytest.mark.parametrize("value", FOREIGN, ids=lambda value: type(value).__name__)
def test_no_other_exception_leaves_it(field: str, value: object) -> None:
    try:
        config = make(**{field: value})
    except ValueError as error:
        message = str(error)
        assert message.startswith((f"{field}=", "embedding_size="))
    else:
        assert RHNConfig(**config.to_dict()) == config
