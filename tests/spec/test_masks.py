"""SPEC.md section 4: values, shapes, sharing and independence of the dropout masks."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from rhn import DropRates, RHNConfig, VariationalMasks, sample_masks
from rhn.spec.arguments import check_masks, check_tokens
from rhn.spec.random import Purpose, uniform

CONFIG = RHNConfig(
    1000, 6, 3, num_layers=2, embedding_size=5, tie_weights=False, couple_gates=False, share_gate_masks=False
)
RATES = DropRates(0.25, 0.75, 0.3, 0.5)
SEEDS = st.integers(0, 2**64 - 1)
# Few word types, so that rows repeat them; ids far apart, so that nothing may depend on how large they are.
TOKENS = hnp.arrays(
    np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.sampled_from([0, 1, 2, 500, 999])
)


@st.composite
def configurations(draw: st.DrawFn) -> RHNConfig:
    return RHNConfig(
        vocab_size=1000,
        hidden_size=draw(st.integers(1, 6)),
        recurrence_depth=draw(st.integers(1, 3)),
        num_layers=draw(st.integers(1, 3)),
        embedding_size=draw(st.integers(1, 6)),
        tie_weights=False,
        couple_gates=draw(st.booleans()),
        share_gate_masks=draw(st.booleans()),
    )


def arrays_of(masks: VariationalMasks) -> list[NDArray]:
    return [masks.embedding, *masks.input, *masks.state, masks.output]


def assert_equal(actual: VariationalMasks, expected: VariationalMasks) -> None:
    for a, e in zip(arrays_of(actual), arrays_of(expected), strict=True):
        np.testing.assert_array_equal(a, e)


RATE = st.floats(0.01, 0.95)


@given(config=configurations(), tokens=TOKENS, rates=st.builds(DropRates, *[RATE] * 4, st.just(0.0)), seed=SEEDS)
def test_shapes_and_values(config: RHNConfig, tokens: NDArray, rates: DropRates, seed: int) -> None:
    masks = sample_masks(config, tokens, rates, seed, step=0)
    batch_size, length = tokens.shape
    gate_masks = 1 if config.share_gate_masks else config.num_gates
    assert masks.embedding.shape == (batch_size, length)
    assert [mask.shape for mask in masks.input] == [
        (gate_masks, batch_size, config.input_size(i)) for i in range(config.num_layers)
    ]
    assert [mask.shape for mask in masks.state] == [(gate_masks, batch_size, config.hidden_size)] * config.num_layers
    assert masks.output.shape == (batch_size, config.hidden_size)

    rate_of_each = [rates[0], *[rates[1]] * config.num_layers, *[rates[2]] * config.num_layers, rates[3]]
    for mask, rate in zip(arrays_of(masks), rate_of_each, strict=True):
        assert mask.dtype == np.float64
        assert np.isin(mask, [0.0, 1.0 / (1.0 - rate)]).all()


@given(seed=SEEDS, step=SEEDS)
def test_units_are_kept_as_often_as_asked(seed: int, step: int) -> None:
    config = RHNConfig(4096, 1024, 1)
    tokens = np.arange(4096).reshape(4, 1024)  # no repeats: as many draws as positions
    for mask, rate in zip(arrays_of(sample_masks(config, tokens, RATES, seed, step)), RATES[:4], strict=True):
        keep = 1.0 - rate
        # The standard deviation of a frequency; six of them.
        tolerance = 6 * math.sqrt(keep * rate / mask.size)
        assert np.count_nonzero(mask) / mask.size == pytest.approx(keep, abs=tolerance)


@given(tokens=TOKENS, seed=SEEDS)
def test_equal_tokens_of_a_row_share_the_embedding_mask(tokens: NDArray, seed: int) -> None:
    mask = sample_masks(CONFIG, tokens, RATES, seed, step=0).embedding
    for row, row_mask in zip(tokens, mask, strict=True):
        for token in np.unique(row):
            assert np.unique(row_mask[row == token]).size == 1


@given(tokens=TOKENS, seed=SEEDS, step=SEEDS)
def test_embedding_mask_is_what_the_specification_says(tokens: NDArray, seed: int, step: int) -> None:
    """The draws of row b belong to the row's word types in the order of their ids."""
    mask = sample_masks(CONFIG, tokens, RATES, seed, step).embedding
    draws = uniform(seed, Purpose.EMBEDDING_MASK, tokens.shape, step=step)
    for b, row in enumerate(tokens.tolist()):
        word_types = sorted(set(row))
        expected = [(draws[b, word_types.index(token)] < 0.75) / 0.75 for token in row]
        assert mask[b].tolist() == expected


@given(tokens=TOKENS, seed=SEEDS, data=st.data())
def test_embedding_mask_of_a_row_does_not_depend_on_the_other_rows(
    tokens: NDArray, seed: int, data: st.DataObject
) -> None:
    row = data.draw(st.integers(0, len(tokens) - 1))
    others_changed = np.random.default_rng(seed).integers(0, 1000, tokens.shape)
    others_changed[row] = tokens[row]
    before = sample_masks(CONFIG, tokens, RATES, seed, step=0).embedding
    after = sample_masks(CONFIG, others_changed, RATES, seed, step=0).embedding
    np.testing.assert_array_equal(before[row], after[row])


@given(tokens=TOKENS, seed=SEEDS)
def test_other_masks_do_not_depend_on_the_tokens(tokens: NDArray, seed: int) -> None:
    masks = sample_masks(CONFIG, tokens, RATES, seed, step=0)
    others = sample_masks(CONFIG, np.zeros_like(tokens), RATES, seed, step=0)
    assert_equal(masks._replace(embedding=0), others._replace(embedding=0))


@given(tokens=TOKENS, seed=SEEDS, step=st.integers(1, 10**6))
def test_masks_do_not_depend_on_what_was_drawn_before(tokens: NDArray, seed: int, step: int) -> None:
    alone = sample_masks(CONFIG, tokens, RATES, seed, step)
    for earlier in range(3):
        sample_masks(CONFIG, tokens, RATES, seed, earlier)
    np.random.default_rng(seed).random(5)
    assert_equal(sample_masks(CONFIG, tokens, RATES, seed, step), alone)


@given(tokens=TOKENS, seed=SEEDS, data=st.data())
def test_a_mask_does_not_depend_on_the_other_rates(tokens: NDArray, seed: int, data: st.DataObject) -> None:
    everything = sample_masks(CONFIG, tokens, RATES, seed, step=0)
    kind = data.draw(st.sampled_from(range(4)))
    alone = sample_masks(CONFIG, tokens, [rate if i == kind else 0.0 for i, rate in enumerate(RATES)], seed, step=0)
    for i, (mask, expected) in enumerate(zip(alone[:4], everything[:4], strict=True)):
        if i == kind:
            np.testing.assert_equal(mask, expected)
        else:
            assert mask is None


def test_every_seed_step_layer_gate_and_kind_is_drawn_apart() -> None:
    config = RHNConfig(10, 64, 2, num_layers=2, share_gate_masks=False)
    tokens = np.tile(np.arange(10), (64, 1))
    rates = DropRates(0.5, 0.5, 0.5, 0.5)
    drawn = []
    for seed, step in ((1, 0), (1, 1), (2, 0)):
        masks = sample_masks(config, tokens, rates, seed, step)
        drawn += [m[g].ravel() for kind in (masks.input, masks.state) for m in kind for g in range(2)]
        drawn.append(masks.output.ravel())
    correlations = np.corrcoef(np.stack(drawn))
    # 4096 units each: a correlation has the standard deviation 1/64; six of them.
    assert np.abs(correlations - np.eye(len(drawn))).max() < 6 / 64


def test_equal_tokens_of_different_rows_are_drawn_apart() -> None:
    mask = sample_masks(CONFIG, np.zeros((4096, 2), dtype=int), DropRates(0.5), seed=1, step=0).embedding
    assert np.count_nonzero(mask[:, 0]) == pytest.approx(2048, abs=6 * 32)  # standard deviation 32


def test_masks_are_frozen() -> None:
    """Whoever changes this digest changes every run that was ever recorded."""
    tokens = np.arange(32).reshape(4, 8) ** 2 % 9  # with repeats
    digest = hashlib.sha256()
    for mask in arrays_of(sample_masks(CONFIG, tokens, RATES, seed=7, step=123)):
        digest.update((mask > 0).tobytes())
    assert digest.hexdigest() == "cbac6e9d73bfca905f280e07ba868e82aaeac3b886b9cc531864a533c2ed418d"


@given(tokens=TOKENS, seed=SEEDS, step=SEEDS)
def test_masks_beyond_the_paper_are_what_the_specification_says(tokens: NDArray, seed: int, step: int) -> None:
    rates = RATES._replace(drop_update=0.4)
    plain = sample_masks(CONFIG, tokens, RATES, seed, step)
    masks = sample_masks(CONFIG, tokens, rates, seed, step, time_masks=True, reset_probability=0.3)
    check_masks(CONFIG, masks, *tokens.shape)
    np.testing.assert_array_equal(masks.embedding, plain.embedding)

    def drawn(purpose: Purpose, shape: tuple[int, ...], keep: float, index: int = 0) -> NDArray:
        return uniform(seed, purpose, shape, step=step, index=index) < keep

    for i in range(2):
        np.testing.assert_array_equal(masks.state[i], plain.state[i])
        input_shape = (3, *tokens.shape, CONFIG.input_size(i))
        np.testing.assert_array_equal(masks.input[i], drawn(Purpose.INPUT_MASK, input_shape, 0.25, i) / 0.25)
        update_shape = (len(tokens), 6)
        np.testing.assert_array_equal(masks.update[i], drawn(Purpose.UPDATE_MASK, update_shape, 0.6, i) / 0.6)
    np.testing.assert_array_equal(masks.output, drawn(Purpose.OUTPUT_MASK, (*tokens.shape, 6), 0.5) / 0.5)
    np.testing.assert_array_equal(masks.carried, drawn(Purpose.CARRIED_STATE, (len(tokens),), 0.7))
    assert int(Purpose.UPDATE_MASK) == 8
    assert int(Purpose.CARRIED_STATE) == 9


def test_columns_and_rows_of_masks_per_time_step() -> None:
    tokens = np.arange(12).reshape(3, 4)
    rates = RATES._replace(drop_update=0.4)
    masks = sample_masks(CONFIG, tokens, rates, 1, 0, time_masks=True, reset_probability=0.3)
    part = masks.columns(slice(1, 3)).rows(slice(0, 2))
    check_masks(CONFIG, part, 2, 2)
    np.testing.assert_array_equal(part.input[1], masks.input[1][:, :2, 1:3])
    np.testing.assert_array_equal(part.output, masks.output[:2, 1:3])
    np.testing.assert_array_equal(part.update[0], masks.update[0][:2])
    np.testing.assert_array_equal(part.carried, masks.carried[:2])
    constant = sample_masks(CONFIG, tokens, RATES, 1, 0)
    check_masks(CONFIG, constant.columns(slice(1, 3)), 3, 2)


def test_refuses_what_is_no_flag_and_no_probability() -> None:
    with pytest.raises(ValueError, match="time_masks=1 is not accepted: expected True or False"):
        sample_masks(CONFIG, [[1, 2]], RATES, 1, 0, time_masks=1)
    with pytest.raises(ValueError, match=r"reset_probability=1\.0 is not accepted: expected a number from 0"):
        sample_masks(CONFIG, [[1, 2]], RATES, 1, 0, reset_probability=1.0)


@given(tokens=TOKENS, seed=SEEDS, data=st.data())
def test_rows_slices_every_mask(tokens: NDArray, seed: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(tokens) - 1))
    rows = slice(start, data.draw(st.integers(start + 1, len(tokens))))
    masks = sample_masks(CONFIG, tokens, RATES, seed, step=0)
    part = masks.rows(rows)
    check_masks(CONFIG, part, *tokens[rows].shape)
    np.testing.assert_array_equal(part.embedding, masks.embedding[rows])
    np.testing.assert_array_equal(part.output, masks.output[rows])
    for kind in ("input", "state"):
        for sliced, whole in zip(getattr(part, kind), getattr(masks, kind), strict=True):
            np.testing.assert_array_equal(sliced, whole[:, rows])


def test_no_rate_no_mask() -> None:
    masks = sample_masks(CONFIG, [[1, 2]], DropRates(), seed=1, step=0)
    assert masks == VariationalMasks(None, None, None, None)
    assert masks.rows(slice(0, 1)) == masks


def test_rates_by_position_and_by_name() -> None:
    tokens = np.arange(12).reshape(2, 6)
    expected = sample_masks(CONFIG, tokens, RATES, seed=1, step=0)
    assert_equal(sample_masks(CONFIG, tokens, tuple(RATES), seed=1, step=0), expected)
    assert_equal(sample_masks(CONFIG, tokens, RATES._asdict(), seed=1, step=0), expected)


@pytest.mark.parametrize("value", [1.0, 1, -0.1, math.nan, "0.5", None, True], ids=repr)
@pytest.mark.parametrize("name", DropRates._fields)
def test_refuses_impossible_rates(name: str, value: object) -> None:
    with pytest.raises(ValueError, match="expected a number from 0 up to, not including, 1") as caught:
        sample_masks(CONFIG, [[1, 2]], {name: value}, seed=1, step=0)
    assert str(caught.value).startswith(f"{name}={value!r} ")


def test_refuses_unknown_and_missing_rates() -> None:
    with pytest.raises(ValueError, match="'drop_x' is not known: accepted are drop_embedding, drop_input, drop_state"):
        sample_masks(CONFIG, [[1, 2]], {"drop_x": 0.5}, seed=1, step=0)
    with pytest.raises(ValueError, match="one for each of drop_embedding, drop_input, drop_state, drop_output"):
        sample_masks(CONFIG, [[1, 2]], [0.5, 0.5], seed=1, step=0)


@pytest.mark.parametrize("tokens", [[1, 2], [[1.0, 2.0]], [[]], [[True, False]], np.zeros((1, 2, 3), dtype=int)])
def test_refuses_tokens_that_are_no_integer_matrix(tokens: object) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, T\) integers"):
        sample_masks(CONFIG, tokens, RATES, seed=1, step=0)


@pytest.mark.parametrize("token", [-1, 1000])
def test_refuses_tokens_outside_of_the_vocabulary(token: int) -> None:
    with pytest.raises(ValueError, match=f"targets from .*{token}.* are not accepted: expected integers from 0 to 999"):
        check_tokens("targets", [[5, token]], vocab_size=1000)


def test_check_names_the_mask_that_does_not_fit() -> None:
    tokens = np.zeros((2, 3), dtype=int)
    masks = sample_masks(CONFIG, tokens, RATES, seed=1, step=0)
    check_masks(CONFIG, masks, 2, 3)
    check_masks(CONFIG, VariationalMasks(), 2, 3)
    with pytest.raises(ValueError, match=r"masks\.embedding of shape \(2, 3\) .*: expected shape \(2, 4\)"):
        check_masks(CONFIG, masks, 2, 4)
    with pytest.raises(ValueError, match=r"masks\.input\[1\] of shape \(3, 2, 5\) .*: expected shape \(3, 2, 6\)"):
        check_masks(CONFIG, masks._replace(input=masks.input[:1] * 2), 2, 3)
    with pytest.raises(ValueError, match=r"masks\.state\[0\] of shape \(1, 2, 6\) .*: expected shape \(3, 2, 6\)"):
        check_masks(CONFIG, masks._replace(state=[mask[:1] for mask in masks.state]), 2, 3)
    with pytest.raises(ValueError, match=r"masks\.output .*: expected shape \(2, 6\) or, per time step, \(2, 3, 6\)"):
        check_masks(CONFIG, masks._replace(output=np.ones((2, 4, 6))), 2, 3)
    with pytest.raises(ValueError, match=r"masks\.update\[0\] of shape \(2, 3, 6\) .*: expected shape \(2, 6\)$"):
        check_masks(CONFIG, masks._replace(update=[np.ones((2, 3, 6))] * 2), 2, 3)
    with pytest.raises(ValueError, match=r"masks\.state of 1 entries is not accepted: expected one per layer, 2"):
        check_masks(CONFIG, masks._replace(state=masks.state[:1]), 2, 3)
