"""The trajectory: one hundred steps that a small mistake does not survive."""

from __future__ import annotations

import numpy as np

from rhn.reference_backend import ReferenceBackend
from rhn_conformance.cases.trajectory import NUM_STEPS, trajectory_case, trajectory_inputs
from rhn_conformance.results import Verdict
from rhn_conformance.rewritten.mutants import MUTANTS
from rhn_conformance.runner import Target, examine


def test_one_hundred_steps_on_text_with_all_masks_of_the_paper() -> None:
    inputs = trajectory_inputs()
    assert len(inputs.steps) == NUM_STEPS == 100
    for step in inputs.steps:
        masks = step.window.masks
        assert all(mask is not None for mask in (masks.embedding, masks.input, masks.state, masks.output))
    for before, after in zip(inputs.steps, inputs.steps[1:], strict=False):
        np.testing.assert_array_equal(before.window.targets[:, -1], after.window.tokens[:, 0])  # consecutive text
        assert np.any(before.window.masks.state[0] != after.window.masks.state[0])


def test_the_reference_learns() -> None:
    losses = trajectory_case().expected()["trajectory"]["losses"]
    assert losses.shape == (NUM_STEPS,)
    assert losses[-10:].mean() < losses[:10].mean() - 5


def test_it_tells_right_from_wrong() -> None:
    kept = next(m for m in MUTANTS if m.name == "masks kept from the window before")
    verdicts = [examine(trajectory_case(), Target(b, "float64")).results for b in (ReferenceBackend(), kept.backend())]
    assert [results[0].verdict for results in verdicts] == [Verdict.PASSED, Verdict.FAILED]
