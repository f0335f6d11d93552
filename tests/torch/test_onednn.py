"""Which library computes float32 products on a CPU: the criteria, and the proof of accuracy, on any machine."""

from __future__ import annotations

import pytest
import torch

from rhn_torch import precision


@pytest.fixture
def probe(monkeypatch):
    """Runs the probe as on a machine that fits the criteria, with given errors of the two settings."""

    def run(errors: dict[str, float] | None = None, capability: str = "AVX512", amd: bool = True) -> bool:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
        monkeypatch.setattr(precision, "_is_amd", lambda: amd)
        if errors is not None:
            monkeypatch.setattr(precision, "_error_of_product", errors.__getitem__)
        precision.onednn_keeps_float32.cache_clear()
        return precision.onednn_keeps_float32()

    yield run
    precision.onednn_keeps_float32.cache_clear()


def test_is_taken_where_it_is_as_accurate(probe):
    assert probe({"ieee": 2e-7, "bf16": 3e-7})


def test_is_left_where_factors_are_rounded(probe):
    assert not probe({"ieee": 2e-7, "bf16": 2e-3})


@pytest.mark.parametrize("machine", [{"capability": "AVX2"}, {"amd": False}], ids=str)
def test_is_not_even_tried_on_other_machines(probe, machine):
    assert not probe({}, **machine)


def test_the_probe_itself(probe):
    """Here with what this machine's libraries do: their accuracy decides, and no setting or generator is changed."""
    before, random_state = precision.ONEDNN.fp32_precision, torch.get_rng_state()
    errors = {setting: precision._error_of_product(setting) for setting in ("ieee", "bf16")}
    assert errors["ieee"] < 1e-6
    assert probe() == (errors["bf16"] <= 4 * errors["ieee"])
    assert precision.ONEDNN.fp32_precision == before
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize(("exact", "setting"), [(True, "bf16"), (False, "ieee")])
def test_models_use_it_and_leave_the_setting_as_it_was(monkeypatch, exact, setting):
    monkeypatch.setattr(precision, "onednn_keeps_float32", lambda: exact)
    before = precision.ONEDNN.fp32_precision
    with precision.Precision("float32", torch.device("cpu")).products():
        assert precision.ONEDNN.fp32_precision == setting
    assert precision.ONEDNN.fp32_precision == before
