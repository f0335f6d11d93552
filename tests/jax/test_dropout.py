"""Variational dropout that a layer draws by itself."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx
from jax import Array

import rhn
from rhn_jax import RHN

T, B, E, H = 4, 3, 5, 6
X = np.random.default_rng(0).standard_normal((B, T, E)).astype(np.float32)
run = nnx.jit(lambda layer, x: layer(x))


def make_layer(seed: int = 0, **options: object) -> RHN:
    return RHN(E, H, 2, **{"drop_input": 0.5, "drop_state": 0.25, "rngs": nnx.Rngs(seed), **options})


def drawn(layer: RHN) -> rhn.VariationalMasks:
    return layer._draw_masks((B,), None, None)


def test_every_call_draws_anew_while_training_and_nothing_while_evaluating() -> None:
    layer = make_layer()
    assert not np.array_equal(run(layer, X), run(layer, X))
    layer.eval()
    evaluated = run(layer, X)
    np.testing.assert_array_equal(evaluated, run(make_layer(drop_input=0.0, drop_state=0.0), X))
    layer.train()
    assert not np.array_equal(run(layer, X), evaluated)
    of_call = nnx.jit(lambda layer, x: layer(x, deterministic=True))
    np.testing.assert_array_equal(of_call(layer, X), evaluated)
    view = nnx.view(layer, deterministic=True)
    np.testing.assert_array_equal(run(view, X), evaluated)
    assert not np.array_equal(view(X, deterministic=False), evaluated)


def test_the_same_seed_draws_the_same() -> None:
    np.testing.assert_array_equal(run(make_layer(), X), run(make_layer(), X))
    layer = make_layer()
    first = layer(X, rngs=nnx.Rngs(7))
    np.testing.assert_array_equal(first, layer(X, rngs=nnx.Rngs(7)))
    assert not np.array_equal(first, layer(X, rngs=nnx.Rngs(8)))


@pytest.mark.parametrize(("share_gate_masks", "num_masks"), [(True, 1), (False, 2)])
def test_masks_are_zero_or_one_over_keep_for_each_layer_direction_and_sequence(
    share_gate_masks: bool, num_masks: int
) -> None:
    masks = drawn(make_layer(num_layers=2, bidirectional=True, share_gate_masks=share_gate_masks))
    assert [mask.shape for mask in masks.input] == [(num_masks, B, width) for width in (E, E, 2 * H, 2 * H)]
    assert [mask.shape for mask in masks.state] == [(num_masks, B, H)] * 4
    assert set(np.unique(np.concatenate([np.ravel(m) for m in masks.input]))) == {0, 2}
    np.testing.assert_allclose(sorted(set(np.ravel(masks.state))), [0, 4 / 3], rtol=1e-6)
    assert not np.array_equal(masks.state[0], masks.state[1])


def test_how_much_is_dropped() -> None:
    layer = make_layer()
    masks = [layer._draw_masks((1000,), None, None) for _ in range(2)]
    for mask, keep in ((masks[0].input[0], 0.5), (masks[1].state[0], 0.75)):
        assert abs(float((mask > 0).mean()) - keep) < 0.03


def test_update_masks_are_drawn_for_every_cell() -> None:
    masks = drawn(make_layer(num_layers=2, drop_update=0.5, share_gate_masks=False))
    assert [mask.shape for mask in masks.update] == [(B, H)] * 2
    assert set(np.unique(masks.update)) == {0, 2}
    assert drawn(make_layer()).update is None


def test_what_is_drawn_is_what_masks_would_be() -> None:
    layer, same = make_layer(drop_update=0.5), make_layer(drop_update=0.5)
    masks = drawn(same)
    np.testing.assert_array_equal(layer(X), layer(X, masks=masks))


def test_given_masks_win() -> None:
    layer = make_layer()
    ones = rhn.VariationalMasks(input=[np.ones((1, B, E))], state=[np.ones((1, B, H))])
    np.testing.assert_allclose(layer(X, masks=ones), layer(X, deterministic=True), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(layer(X, masks=rhn.VariationalMasks()), layer(X, deterministic=True))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (rhn.VariationalMasks(input=[np.ones((1, 1, E))]), r"masks.input of shapes \[\(1, 1, 5\)\] is not accepted"),
        (rhn.VariationalMasks(state=[np.ones((3, B, H))]), r"masks.state of shapes .* \[\(1, 3, 6\)\]"),
        (rhn.VariationalMasks(state=[np.ones((1, B, H))] * 2), r"masks.state of shapes .* one mask per layer"),
    ],
)
def test_masks_that_would_broadcast_are_refused(masks: rhn.VariationalMasks, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_layer()(X, masks=masks)


def test_a_rate_is_a_fraction() -> None:
    for name in ("drop_input", "drop_state", "drop_update"):
        with pytest.raises(ValueError, match=f"{name}=1.0 is not accepted: expected a number from 0 up to"):
            make_layer(**{name: 1.0})


def test_a_layer_without_dropout_holds_no_random_state() -> None:
    layer = RHN(E, H, 2, rngs=nnx.Rngs(params=0))  # there is no stream for dropout, and none is asked for
    assert {type(v) for v in jax.tree.leaves(nnx.state(layer), is_leaf=lambda v: isinstance(v, nnx.Variable))} == {
        nnx.Param
    }


def test_gradients_flow_through_what_was_drawn() -> None:
    layer, same = make_layer(), make_layer()
    masks = drawn(same)

    def loss(layer: RHN, masks: rhn.VariationalMasks | None) -> Array:
        return (layer(X, masks=masks) ** 2).sum()

    gradients, expected = nnx.grad(loss)(layer, None), nnx.grad(loss)(same, masks)
    for g, e in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(g, e, rtol=0, atol=1e-6)
