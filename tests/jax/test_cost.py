"""What the programs are made of: guards of speed and memory that no machine's noise can trip."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import Case, make_case
from jax import Array
from jax.lax import DotAlgorithmPreset, Precision

from rhn_jax import fast_recurrence
from rhn_jax.backend import JaxBackend, JaxModel
from rhn_jax.backend.programs import apply_gradients, forward, gradients, log_likelihoods, log_likelihoods_in_chunks

T, B, H, L = 5, 3, 4, 3


def arguments(num_masks: int = 1) -> tuple[Any, ...]:
    """Of `fast_recurrence`, coupled."""
    mask = None if num_masks == 0 else jnp.full((num_masks, B, H), 2.0)
    return jnp.ones((T, B, 2 * H)), jnp.ones((B, H)), [jnp.ones((H, 2 * H))] * L, jnp.ones((L, 2 * H)), mask


def equations(jaxpr: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every equation with the path of the scans that it is in, such as "scan/"."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        yield path, equation
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from equations(inner, f"{path}scan/" if name == "scan" else path)


def scans_and_products(jaxpr: Any) -> tuple[list[Any], list[tuple[str, Any]]]:
    program = list(equations(jaxpr))
    scans = [equation for _, equation in program if equation.primitive.name == "scan"]
    return scans, [(path, equation) for path, equation in program if equation.primitive.name == "dot_general"]


def assert_products(products: list[tuple[str, Any]], in_loops: int, outside: int) -> None:
    """That there are so many, and each is of two matrices: XLA has its fast paths for these."""
    paths = [path for path, _ in products]
    assert (paths.count("scan/"), paths.count(""), len(paths)) == (in_loops, outside, in_loops + outside)
    for _, equation in products:
        _, batch_axes = equation.params["dimension_numbers"]
        assert batch_axes == ((), ())


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("num_masks", "blocks"), [(0, 1), (1, 1), (2, 2)])
def test_scans_and_products_of_the_recurrence(num_masks: int, blocks: int, recompute: bool) -> None:
    def loss(*arguments: Any) -> Array:
        return fast_recurrence(*arguments, recompute=recompute).sum()

    gradient = jax.value_and_grad(loss, argnums=(0, 1, 2, 3))
    scans, products = scans_and_products(jax.make_jaxpr(gradient)(*arguments(num_masks)).jaxpr)
    assert [scan.params["reverse"] for scan in scans] == [False, True]
    # One per micro-step, forward and backward; and outside one for each weight's gradient, over time and batch, and one
    # for the gates that are computed again.
    assert_products(products, in_loops=2 * L * blocks, outside=L * blocks * (2 if recompute else 1))


@pytest.mark.parametrize(("update_mask", "forward", "backward"), [(None, 3, 9), (jnp.ones((B, H)), 4, 13)])
def test_an_update_mask_costs_multiplications_only(update_mask: Any, forward: int, backward: int) -> None:
    """Four in the backward, of which XLA removes the two for the mask's own gradient."""
    gradient = jax.grad(lambda *arrays: fast_recurrence(*arrays, update_mask=update_mask).sum(), argnums=(0, 1, 2, 3))
    scans, products = scans_and_products(jax.make_jaxpr(gradient)(*arguments()).jaxpr)
    assert_products(products, in_loops=2 * L, outside=L)
    counts = [sum(e.primitive.name == "mul" for _, e in equations(scan.params["jaxpr"].jaxpr)) for scan in scans]
    assert counts == [L * forward, L * backward]


@pytest.mark.parametrize("recompute", [False, True])
def test_what_the_forward_keeps(recompute: bool) -> None:
    _, backward = jax.eval_shape(partial(jax.vjp, partial(fast_recurrence, recompute=recompute)), *arguments())
    over_time = sorted(leaf.shape for leaf in jax.tree.leaves(backward) if leaf.shape[0] == T)
    states, gates, projected = [(T, B, H)] * L, [(T, B, H)] * 2 * L, [(T, B, 2 * H)]
    assert over_time == (states + projected if recompute else states + gates)


@pytest.mark.parametrize("recompute", [False, True])
def test_memory_of_a_long_window(recompute: bool) -> None:
    """In arrays of the size of the outputs: at most half as much again as what the forward keeps."""
    length, batch_size, hidden = 64, 64, 16

    def of_shape(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    weights = [of_shape(hidden, 2 * hidden)] * L
    inputs = of_shape(length, batch_size, 2 * hidden), of_shape(batch_size, hidden), weights, of_shape(L, 2 * hidden)
    gradient = jax.grad(lambda *inputs: (fast_recurrence(*inputs, recompute=recompute) ** 2).sum(), (0, 1, 2, 3))
    memory = jax.jit(gradient).lower(*inputs).compile().memory_analysis().temp_size_in_bytes
    kept = L + 2 if recompute else L + 2 * L  # states, and projected or gates
    # Measured: 1.38 times, and 1.33 with `recompute`; without slices 1.9 and 3.8 times.
    assert memory <= 1.5 * kept * length * batch_size * hidden * 4


def test_the_masks_gradient_costs_nothing_unless_asked_for() -> None:
    def compiled_size(asked_for: tuple[int, ...]) -> int:
        gradient = jax.grad(lambda *inputs: fast_recurrence(*inputs).sum(), argnums=asked_for)
        program = jax.jit(gradient).lower(*arguments()).compile().as_text()
        loops = [line for line in program.splitlines() if " while(" in line]
        assert len(loops) == 2
        return sum(line.count("f32[") for line in loops)

    assert compiled_size((0, 1, 2, 3)) < compiled_size((0, 1, 2, 3, 4))


# ----------------------------------------------------------------------------------------------------------------------
# The backend's programs
# ----------------------------------------------------------------------------------------------------------------------


def build(case: Case, **options: Any) -> JaxModel:
    return JaxBackend().build(case.config, case.parameters, device="cpu", **options)


def gradients_program(model: JaxModel, case: Case) -> Any:
    window = model._window(case.tokens, case.targets, case.state, case.masks)
    return model._run(gradients.trace, model._params, window).jaxpr.jaxpr


def test_scans_and_products_of_a_training_step() -> None:
    case = make_case(recurrence_depth=L, num_layers=2, masks="separate")
    scans, products = scans_and_products(gradients_program(build(case), case))
    assert [scan.params["reverse"] for scan in scans] == [False, False, True, True]
    # Besides the recurrence, per layer and gate: the projection of the input and its two gradients; and the softmax.
    assert_products(products, in_loops=2 * 2 * L * 2, outside=2 * 2 * (L + 3) + 3)


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("float32", (Precision.HIGHEST, Precision.HIGHEST)),
        ("tf32", (Precision.HIGH, Precision.HIGH)),
        ("bf16", DotAlgorithmPreset.BF16_BF16_F32),
    ],
)
@pytest.mark.parametrize("recompute", [False, True])
def test_every_product_of_a_training_step_has_the_precision(precision: str, expected: Any, recompute: bool) -> None:
    case = make_case()
    _, products = scans_and_products(gradients_program(build(case, precision=precision, recompute=recompute), case))
    assert {product.params["precision"] for _, product in products} == {expected}


def test_an_epoch_compiles_one_program_per_window_size() -> None:
    """The last window of an evaluation is a shorter one; other rates and another model are no reason to compile."""
    case = make_case()
    programs = (gradients, apply_gradients, forward, log_likelihoods)
    for program in programs:
        program.clear_cache()
    for epoch in range(2):
        model = build(case)
        state = model.zero_state(3)
        for step in range(3):
            rates = 0.1 / (step + 1), 1e-3 * step, 10 - step  # also an integer among them
            _, state = model.train_step(case.tokens, case.targets, state, case.masks, *rates)
        state = model.zero_state(3)
        for length in (3, 3, 2):
            _, state = model.evaluate_step(case.tokens[:, :length], case.targets[:, :length], state)
        assert [program._cache_size() for program in programs] == [1, 1, 2, 2], epoch


def test_training_reuses_the_buffers_of_the_parameters() -> None:
    case = make_case()
    model = build(case)
    before = jax.tree.leaves(model._params)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # JAX warns of a buffer that it was given and cannot use
        model.train_step(case.tokens, case.targets, case.state, case.masks, 0.1, 0.0, 10.0)
    assert all(leaf.is_deleted() for leaf in before)


def test_an_epoch_reads_nothing_back_from_the_device() -> None:
    """While it is traced the arrays have no values: to read one is an error, on every device."""
    case = make_case(drop_update=0.4, time_masks=True, reset_probability=0.5)
    model = build(case)

    def epoch(state: list[Array]) -> Any:
        for _ in range(2):
            loss, state = model.train_step(case.tokens, case.targets, state, case.masks, 0.1, 1e-3, 10.0)
        nll, state = model.evaluate_step(case.tokens, case.targets, state)
        return loss, nll, model.last_grad_norm, state

    assert [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(epoch, model.zero_state(3)))] == [(), (), (), (3, 6)]


def test_windows_of_all_lengths_are_one_program() -> None:
    case = make_case()
    gradients.clear_cache()
    model = build(case)
    for length in (3, 2, 1):
        model.train_step(case.tokens, case.targets, case.state, case.masks, 0.1, 0.0, 10.0, length=length)
    assert gradients._cache_size() == 1


def test_a_score_makes_the_logits_of_a_few_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(vocab_size=97)
    model = build(case)
    window = model._window(case.tokens, case.targets, case.state, case.masks)
    whole, _ = model.log_likelihoods(case.tokens, case.targets, case.state, case.masks)
    monkeypatch.setattr("rhn.port_tools.MOST_LOGITS", 4 * 97)
    program = jax.make_jaxpr(log_likelihoods_in_chunks, static_argnums=(0, 3))(model._graph, model._params, window, 4)
    logits = [v.aval.shape for _, e in equations(program.jaxpr) for v in e.outvars if v.aval.shape[-1:] == (97,)]
    assert max(np.prod(shape) for shape in logits) == 4 * 97 < case.tokens.size * 97
    chunked, _ = model.log_likelihoods(case.tokens, case.targets, case.state, case.masks)
    nll, _ = model.evaluate_step(case.tokens, case.targets, case.state, case.masks)
    np.testing.assert_allclose(chunked, whole, rtol=1e-6)  # in float32; measured: 0 and, of the sum, 8.6e-8
    np.testing.assert_allclose(nll, -whole.sum(), rtol=1e-6)
