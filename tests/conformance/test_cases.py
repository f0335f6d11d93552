"""The cases say what they claim to say."""

from __future__ import annotations

import re
from itertools import pairwise as neighbours
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rhn_conformance.case import Inputs, Window
from rhn_conformance.cases.covering import all_pairs, pairs, pairwise
from rhn_conformance.cases.layers import LAYER_DESCRIPTIONS, LayerDescription, make_layer_inputs
from rhn_conformance.cases.numbers import Description, make_inputs
from rhn_conformance.cases.synthetic import CLIPPED, DESCRIPTIONS, FACTORS, reference_answers, synthetic_cases
from rhn_conformance.rewritten.mutants import MUTANTS
from rhn_conformance.suite import all_cases, select

SPEC = Path(__file__).parents[2] / "SPEC.md"
# What no answer of a backend can show: rules about drawing (1.6, 4.7, 4.8, 4.12, 4.13), the rule about errors (6.1),
# which every check applies, the permission to be less exact (6.4), whose limits each port tests itself, and files (8).
NOT_FOR_BACKENDS = {"1.6", "4.7", "4.8", "4.12", "4.13", "6.1", "6.4", "8.1", "8.2", "8.3", "8.4", "8.5"}

by_case = pytest.mark.parametrize("case", DESCRIPTIONS, ids=lambda case: case.name)


def test_names_are_unique() -> None:
    names = [case.name for case in all_cases()]
    assert len(set(names)) == len(names)


def test_every_clause_has_a_case_and_every_case_names_real_clauses() -> None:
    clauses = set(re.findall(r"^\* \*\*(\d\.\d+)\*\*", SPEC.read_text(), flags=re.MULTILINE))
    tested = {c for e in all_cases() for c in e.clauses} | {c for e in all_cases() for k in e.checks for c in k.clauses}
    assert tested == clauses - NOT_FOR_BACKENDS


def test_the_quick_cases_name_every_clause_that_no_mutant_breaks() -> None:
    named = {
        c
        for e in select(all_cases(), None, quick=True)
        for c in (*e.clauses, *(c for k in e.checks for c in k.clauses))
    }
    tested = {c for e in all_cases() for c in (*e.clauses, *(c for k in e.checks for c in k.clauses))}
    assert tested - named <= {mutant.clause for mutant in MUTANTS}


def test_every_pair_of_option_values_occurs() -> None:
    rows = pairwise(FACTORS)
    covered = {pair for row in rows for pair in pairs(row, FACTORS)}
    assert covered == set(all_pairs(FACTORS))
    assert len(rows) == len([case for case in DESCRIPTIONS if case.name.startswith("pairs-")]) <= 15


def test_pairwise_of_two_factors_is_their_product() -> None:
    rows = pairwise({"a": (1, 2, 3), "b": "xy"})
    assert {(row["a"], row["b"]) for row in rows} == {(a, b) for a in (1, 2, 3) for b in "xy"}


@by_case
def test_inputs_are_exact_in_float32(case: Description) -> None:
    inputs = make_inputs(case)
    arrays = [*inputs.parameters.values(), *(inputs.state or [])]
    for window in windows_of(inputs):
        masks = window.masks
        if masks is not None:
            masks.map(arrays.append)
    for array in arrays:
        if array is not None:
            np.testing.assert_array_equal(array, array.astype(np.float32))


@by_case
def test_masks_drop_some_units_and_keep_some(case: Description) -> None:
    for kind, rate in case.rates._asdict().items():
        per_window = [mask_of(window, kind) for window in windows_of(make_inputs(case))]
        if rate == 0:
            assert per_window == [None] * len(per_window)
            continue
        values = np.concatenate([mask.ravel() for window in per_window for mask in window])
        assert 0 < np.count_nonzero(values) < values.size


@by_case
def test_masks_are_drawn_anew_for_every_step(case: Description) -> None:
    for kind, rate in case.rates._asdict().items():
        per_step = [mask_of(step.window, kind) for step in make_inputs(case).steps]
        if rate and kind != "drop_embedding":  # which may have a single entry, and fall out the same
            for before, after in neighbours(per_step):
                assert any(np.any(b != a) for b, a in zip(before, after, strict=True))


@by_case
def test_separate_masks_differ_between_gates(case: Description) -> None:
    masks = make_inputs(case).double_window.masks
    if not case.config.share_gate_masks and masks is not None:
        for mask in [*(masks.input or []), *(masks.state or [])]:  # (M, B, features), or (M, B, T, features)
            assert np.any(mask[0] != mask[-1])


@by_case
def test_clipping_is_active_exactly_where_it_is_meant_to_be(case: Description) -> None:
    for number in range(1, case.num_steps + 1):
        norm = reference_answers(case)["training"][f"step {number}: grad_norm"]
        assert (norm > case.max_grad_norm) == (case.max_grad_norm == CLIPPED)


@by_case
def test_reference_hands_over_exactly(case: Description) -> None:
    """Two windows give what their double gives; so comparing with the reference's two is comparing with its double."""
    answers = reference_answers(case)
    for layer in range(case.config.num_layers):
        np.testing.assert_allclose(
            answers["hand-over"][f"state.{layer}"], answers["forward"][f"state.{layer}"], rtol=0, atol=1e-15
        )


@by_case
def test_reference_rows_are_independent(case: Description) -> None:
    answers = reference_answers(case)
    if "rows" in answers:
        first = answers["forward"]["logits"][:1]
        for row in answers["rows"]["logits"]:
            np.testing.assert_allclose(row[None], first, rtol=1e-12, atol=1e-14 * np.abs(first).max())


@pytest.mark.parametrize("description", LAYER_DESCRIPTIONS, ids=lambda description: description.name)
def test_layers_are_given_exact_numbers_lengths_and_masks(description: LayerDescription) -> None:
    inputs = make_layer_inputs(description)
    masks: list[NDArray] = []
    if inputs.masks:
        inputs.masks.map(masks.append)
    for array in (
        *inputs.parameters.values(),
        inputs.x,
        inputs.d_outputs,
        *inputs.d_state,
        *(inputs.state or []),
        *masks,
    ):
        np.testing.assert_array_equal(array, array.astype(np.float32))
    for mask in masks:
        assert set(np.unique(mask)) == {0.0, 2.0}
    if description.lengths is not None:
        assert {0, 1, description.length} < set(description.lengths)
        assert len(description.lengths) == description.batch_size


def test_selection_by_name_clause_and_nothing() -> None:
    cases = synthetic_cases()
    assert {e.name for e in select(cases, "uncoupled")} > {"uncoupled", "masks-separate-uncoupled"}
    assert [e.name for e in select(cases, "5.8")] == ["decoupled-decay", "adam-decoupled-decay"]
    assert select(cases, None) == cases
    with pytest.raises(ValueError, match="selects nothing"):
        select(cases, "no such case")


def windows_of(inputs: Inputs) -> list[Window]:
    return [inputs.double_window, *(step.window for step in inputs.steps)]


def mask_of(window: Window, kind: str) -> list[NDArray] | None:
    """The masks of a kind, called as its drop rate: a list of one, or of one per layer."""
    mask = window.masks and getattr(window.masks, kind.removeprefix("drop_"))
    return mask if mask is None or isinstance(mask, list) else [mask]
