"""SPEC.md 4.7: the raw draws, which must never change."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rhn.spec.random import Purpose, uniform

WORD = st.integers(0, 2**64 - 1)
FIRST_DRAWS = [0.3951032071139946, 0.7783614351470464, 0.512623023787959]
DIGEST = "b894a0817c5189f664cda1bd004007a67794debf61c2acbf2db030aab995ddf4"


def test_purposes_are_frozen() -> None:
    assert {purpose.name: purpose.value for purpose in Purpose} == {
        "PARAMETERS": 1,
        "EMBEDDING_MASK": 2,
        "INPUT_MASK": 3,
        "STATE_MASK": 4,
        "OUTPUT_MASK": 5,
        "GENERATION": 6,
        "MONTE_CARLO": 7,
        "UPDATE_MASK": 8,
        "CARRIED_STATE": 9,
        "WINDOW_LENGTH": 10,
    }


def test_stream_is_frozen() -> None:
    """Whoever changes this digest changes every run that was ever recorded."""
    draws = uniform(7, Purpose.STATE_MASK, (3, 1000), step=123, index=1)
    assert draws[0, :3].tolist() == FIRST_DRAWS
    assert hashlib.sha256(draws.tobytes()).hexdigest() == DIGEST


@given(seed=WORD, purpose=st.sampled_from(Purpose), step=WORD, index=WORD)
def test_is_what_the_specification_says(seed: int, purpose: Purpose, step: int, index: int) -> None:
    generator = np.random.Philox(
        key=np.array([seed, purpose], dtype=np.uint64), counter=np.array([0, index, step, 0], dtype=np.uint64)
    )
    expected = [(word >> 11) * 2.0**-53 for word in generator.random_raw(6).tolist()]
    assert uniform(seed, purpose, (2, 3), step=step, index=index).ravel().tolist() == expected


@given(seed=WORD, step=WORD)
def test_lies_in_the_unit_interval_and_looks_uniform(seed: int, step: int) -> None:
    draws = uniform(seed, Purpose.INPUT_MASK, (4096,), step=step)
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    # Mean and mean square of 4096 uniform numbers: standard deviations 0.0045 and 0.0047; six of them.
    assert draws.mean() == pytest.approx(1 / 2, abs=0.028)
    assert np.square(draws).mean() == pytest.approx(1 / 3, abs=0.029)


def test_every_argument_gives_another_stream() -> None:
    streams = [
        uniform(1, Purpose.INPUT_MASK, (64,)),
        uniform(2, Purpose.INPUT_MASK, (64,)),
        uniform(1, Purpose.STATE_MASK, (64,)),
        uniform(1, Purpose.INPUT_MASK, (64,), step=1),
        uniform(1, Purpose.INPUT_MASK, (64,), index=1),
    ]
    assert np.unique(np.stack(streams)).size == 5 * 64


@pytest.mark.parametrize("name", ["seed", "step", "index"])
@pytest.mark.parametrize("value", [-1, 2**64, 1.0, "1", True, None, np.array([1])], ids=repr)
def test_refuses_what_is_no_64_bit_counter(name: str, value: object) -> None:
    arguments = {"seed": 1, "step": 0, "index": 0, name: value}
    with pytest.raises(ValueError, match=r"expected an integer from 0 to 2\*\*64 - 1") as caught:
        uniform(arguments["seed"], Purpose.INPUT_MASK, (2,), step=arguments["step"], index=arguments["index"])
    assert str(caught.value).startswith(f"{name}={value!r} ")
