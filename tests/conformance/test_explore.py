"""Random exploration finds nothing where nothing is wrong, and something where something is."""

from __future__ import annotations

import pytest

from rhn.reference_backend import ReferenceBackend
from rhn_conformance.explore import explore
from rhn_conformance.rewritten.mutants import MUTANTS
from rhn_conformance.runner import Target


def test_the_reference_passes() -> None:
    explore([Target(ReferenceBackend(), "float64"), Target(ReferenceBackend(), "float32")], examples=15)


def test_a_mutant_is_found_and_shrunk() -> None:
    mutant = next(m for m in MUTANTS if m.name == "shared masks where separate are asked")
    with pytest.raises(ValueError, match=r"share_gate_masks=False.*\n.*failed: ") as caught:
        explore([Target(mutant.backend(), "float64")])
    assert "num_layers=1" in str(caught.value)  # the smallest case that fails
