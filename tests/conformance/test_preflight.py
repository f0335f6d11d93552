"""The gate before training: it lets the right model pass, and refuses a wrong one by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

import rhn
from rhn.backend import Model
from rhn.preflight import PreflightError, has_all_masks, preflight, variant_config, variant_of, variants
from rhn.reference_backend import ReferenceBackend
from rhn_conformance.rewritten.mutants import MUTANTS, Mutant

CONFIG = rhn.RHNConfig(vocab_size=10000, hidden_size=830, recurrence_depth=10)
# A run trains a model; layers on their own have no part in it.
MUTANTS_OF_MODELS = [mutant for mutant in MUTANTS if not mutant.clause.startswith("7.")]
# Mistakes that no single small model can show.
UNSEEN = {
    "layers share a state",  # one layer
    "input masks of the first layer only",
    "tanh whatever the activation",  # tanh
    "softmax overflows",
    "two biases in the count",
    "Adam without bias correction",  # the paper's optimiser
    "decoupled decay scaled by the rate",
    "average includes the start",
    "momentum damped",
    "clip by value before the norm",
    "no clip by value",
    "projection is not trained",  # tied weights as wide as the layer
    "activations regularised without their mask",  # the paper's loss
    "first output regularised as a change from zero",
    "padding read",  # full windows
    "processes average their means",  # one process
    "processes divide by their own rows",
    "clip before the sum over processes",
    "every process adds the decay",
    "masks of the first process for all",
}
# Mistakes smaller than the rounding of bf16.
UNSEEN_IN_BF16 = {"parameters altered by 1e-8", "rows leak into each other"}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("variant", variants())
def test_the_reference_passes_in_every_variant(variant: str, dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    config, all_masks = variant_config(variant), has_all_masks(variant)
    assert variant_of(config, all_masks) == variant
    report = preflight(partial(ReferenceBackend().build, dtype=dtype), config, dtype, all_masks=all_masks)
    assert report.num_cases == 12
    assert report.worst.ulps < 100  # measured: 15
    assert report.seconds < 5
    assert capsys.readouterr().out == f"preflight: 12 cases, worst {report.worst.ulps:.2g} ULP, ok\n"


def test_the_model_is_small_whatever_the_run() -> None:
    built: list[rhn.RHNConfig] = []

    def build(config: rhn.RHNConfig, parameters: Mapping[str, NDArray]) -> Model:
        built.append(config)
        return ReferenceBackend().build(config, parameters)

    preflight(build, CONFIG)
    assert [config.hidden_size for config in built] == [6]


@pytest.mark.parametrize(("dtype", "precision"), [("float64", "float32"), ("float32", "bf16")])
@pytest.mark.parametrize("mutant", MUTANTS_OF_MODELS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_mutants_are_refused_in_some_variant(mutant: Mutant, dtype: str, precision: str) -> None:
    build = partial(mutant.backend().build, dtype=dtype)

    def is_refused(variant: str) -> bool:
        try:
            preflight(build, variant_config(variant), dtype, precision, all_masks=has_all_masks(variant))
        except PreflightError:
            return True
        return False

    unseen = UNSEEN | UNSEEN_IN_BF16 if precision == "bf16" else UNSEEN
    assert any(map(is_refused, variants())) == (mutant.name not in unseen)


def test_refusal_names_case_tensor_and_error() -> None:
    ascent = next(m for m in MUTANTS if m.name == "ascent").backend()
    message = r"^preflight: case 'first step' \(coupled, tied, shared masks\): .*\[.*\] is .*, expected .*: off by"
    with pytest.raises(PreflightError, match=message):
        preflight(ascent.build, CONFIG)


def test_a_result_that_is_not_finite_is_refused() -> None:
    class Poisoned(ReferenceBackend):
        def build(self, config, parameters, *args, **kwargs):
            return super().build(config, {k: np.full_like(v, np.nan) for k, v in parameters.items()}, *args, **kwargs)

    with pytest.raises(PreflightError, match="is nan, expected"):
        preflight(Poisoned().build, CONFIG)


def test_a_model_that_raises_is_refused() -> None:
    class Broken(ReferenceBackend):
        def build(self, *args, **kwargs):
            model = super().build(*args, **kwargs)
            model.evaluate_step = None
            return model

    with pytest.raises(PreflightError, match=r"case 'evaluation' .* fails with TypeError"):
        preflight(Broken().build, CONFIG)
