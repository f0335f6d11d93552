"""How a backend is found by name, and the reference as one of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import errors_against_reference, make_case

import rhn
from rhn.spec import reference

# ---------------------------------------------------------------------------------------------------------------------
# Finding
# ---------------------------------------------------------------------------------------------------------------------


def install(folder: Path, entry_points: str, source: str = "") -> None:
    """What `pip install` leaves of a third party's package: a module and the declaration of its backends."""
    (folder / "highway_extras.py").write_text(source)
    declaration = folder / "highway_extras-1.0.dist-info"
    declaration.mkdir()
    (declaration / "METADATA").write_text("Metadata-Version: 2.1\nName: highway-extras\nVersion: 1.0\n")
    (declaration / "entry_points.txt").write_text(f"[rhn.backends]\n{entry_points}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "highway_extras", raising=False)
    return tmp_path


def test_the_four_backends_are_declared() -> None:
    assert {"reference", "torch", "tf", "jax"} <= rhn.installed_backends().keys()


@pytest.mark.parametrize("name", ["pytorch", "Torch", "", "numpy"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match="is not known") as caught:
        rhn.load_backend(name)
    assert str(caught.value).startswith(f"backend={name!r} is not known: accepted are ")
    for known in ("jax", "reference", "tf", "torch"):
        assert known in str(caught.value)


@pytest.mark.parametrize(
    ("name", "frameworks"), [("torch", ["torch"]), ("tf", ["tensorflow", "keras"]), ("jax", ["jax", "flax"])]
)
def test_a_framework_that_is_not_installed_says_what_to_install(name: str, frameworks: list[str]) -> None:
    program = (
        "import sys, rhn\n"
        f"sys.modules.update(dict.fromkeys({frameworks!r}))\n"  # import fails on a module that is None
        "try:\n"
        f"    rhn.load_backend({name!r})\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    missing = [
        f"backend {name!r} needs {framework}, which is not installed: pip install 'recurrent-highway-networks[{name}]'"
        for framework in frameworks
    ]
    assert said.strip() in missing  # whichever of them is imported first


@pytest.mark.parametrize("attribute", ["Backend", "backend"])
def test_a_third_party_may_declare_a_class_or_an_object(site: Path, attribute: str) -> None:
    source = "from rhn.reference_backend import ReferenceBackend\n\nclass Backend(ReferenceBackend):\n"
    install(site, f"extras = highway_extras:{attribute}", source + "    name = 'extras'\n\nbackend = Backend()\n")
    assert "extras" in rhn.installed_backends()
    backend = rhn.load_backend("extras")
    assert isinstance(backend, rhn.Backend)
    assert backend.name == "extras"


def test_a_third_party_without_its_framework_names_that(site: Path) -> None:
    install(site, "extras = highway_extras:Backend", "import no_such_framework\n")
    with pytest.raises(ImportError, match="backend 'extras' needs no_such_framework, which is not installed: pip inst"):
        rhn.load_backend("extras")


def test_a_broken_third_party_breaks_nobody_else(site: Path) -> None:
    install(site, "extras = highway_extras:Backend", "raise RuntimeError('broken')\n")
    assert rhn.load_backend("reference").name == "reference"
    with pytest.raises(RuntimeError, match="broken"):
        rhn.load_backend("extras")


# ---------------------------------------------------------------------------------------------------------------------
# The reference as a backend
# ---------------------------------------------------------------------------------------------------------------------


def build(dtype: str = "float64", **options: object) -> tuple[rhn.Model, tuple]:
    case = make_case(**options)
    return rhn.load_backend("reference").build(case.config, case.parameters, dtype=dtype), case


def test_reference_meets_the_protocols() -> None:
    backend = rhn.load_backend("reference")
    assert isinstance(backend, rhn.Backend)
    assert backend.describe() == {"numpy": np.__version__, "device": "cpu"}
    model, case = build()
    assert isinstance(model, rhn.Model)
    assert model.config == case.config
    assert model.parameter_count == rhn.parameter_count(case.config)
    assert [s.shape for s in model.zero_state(4)] == [(4, 6)]


@pytest.mark.parametrize(("dtype", "half_a_unit"), [("float64", 0.0), ("float32", 2.0**-24)])
def test_reference_rounds_what_it_returns_and_its_parameters_after_a_step(dtype: str, half_a_unit: float) -> None:
    model, case = build(dtype, num_layers=2)
    errors = errors_against_reference(model, case)
    after_steps = {name for name in errors if "step" in name}
    assert after_steps
    assert max(error for name, error in errors.items() if name not in after_steps) <= half_a_unit
    assert max(errors[name] for name in after_steps) <= 2 * half_a_unit  # of the step before and of this one


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_have_the_dtype_asked_for(dtype: str) -> None:
    model, case = build(dtype)
    logits, state = model.forward(case.tokens)
    _, gradients, _ = model.gradients(case.tokens, case.targets)
    for array in (logits, *state, *gradients.values(), *model.parameters().values()):
        assert array.dtype == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters_come_back_bit_for_bit_and_as_copies(dtype: str) -> None:
    config = rhn.RHNConfig(11, 6, 2)
    given = {name: value.astype(dtype) for name, value in rhn.initial_parameters(config, seed=1).items()}
    model = rhn.load_backend("reference").build(config, given, dtype=dtype)
    for _ in range(2):
        for name, value in model.parameters().items():
            np.testing.assert_array_equal(value, given[name], strict=True)
            value[...] = np.nan  # must reach neither the model nor what was given


def test_training_changes_the_model_and_not_what_was_given() -> None:
    model, case = build()
    before = {name: value.copy() for name, value in case.parameters.items()}
    model.train_step(case.tokens, case.targets, case.state, case.masks, 0.5, 0.0, 1.0)
    for name, value in case.parameters.items():
        np.testing.assert_array_equal(value, before[name])
        assert not np.array_equal(model.parameters()[name], value)


def test_evaluation_sums_over_window_and_batch() -> None:
    model, case = build()
    nll, _ = model.evaluate_step(case.tokens, case.targets, case.state, case.masks)
    loss, _, _ = model.gradients(case.tokens, case.targets, case.state, case.masks)
    assert float(model.to_numpy(nll)) == pytest.approx(loss * len(case.tokens), rel=1e-14)
    with pytest.raises(ValueError, match="targets of shape"):
        model.evaluate_step(case.tokens, case.targets[:, :1], case.state)
    with pytest.raises(ValueError, match="targets from"):
        model.evaluate_step(case.tokens, case.targets + case.config.vocab_size, case.state)


def test_what_the_reference_has_not_is_refused() -> None:
    case = make_case()
    backend = rhn.load_backend("reference")
    with pytest.raises(ValueError, match="dtype='bfloat16' is not accepted: expected one of float32, float64"):
        backend.build(case.config, case.parameters, dtype="bfloat16")
    with pytest.raises(ValueError, match="device='gpu' is not accepted: expected cpu"):
        backend.build(case.config, case.parameters, device="gpu")
    with pytest.raises(ValueError, match="missing embedding"):
        backend.build(case.config, {})
    assert reference.zero_state(case.config, 1)[0].dtype == np.float64
