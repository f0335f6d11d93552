"""The built wheel: what is in it, and that it lives beside a package named `datasets`."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"rhn", "rhn_conformance", "rhn_datasets", "rhn_jax", "rhn_tf", "rhn_torch"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT], check=True)
    (path,) = folder.glob("*.whl")
    return path


def test_top_level_names_are_exactly_ours(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
    assert any(name.startswith("rhn_conformance/vectors/authors/") for name in names)


def test_installs_beside_a_package_named_datasets(wheel: Path, tmp_path: Path) -> None:
    stand_in = tmp_path / "stand_in"
    (stand_in / "datasets").mkdir(parents=True)
    (stand_in / "datasets" / "__init__.py").write_text("WHOSE = 'somebody else'\n")
    (stand_in / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "datasets-stand-in"\nversion = "1"\n'
        '[tool.hatch.build.targets.wheel]\npackages = ["datasets"]\n'
    )
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel, stand_in], check=True)
    program = (
        "import datasets, rhn, rhn_datasets, rhn_conformance\n"
        "assert datasets.WHOSE == 'somebody else'\n"
        "config = rhn.RHNConfig(vocab_size=10, hidden_size=4, recurrence_depth=2)\n"
        "rhn.load_backend('reference').build(config, rhn.initial_parameters(config, seed=1))\n"
    )
    # From the repository's root, too, the folder `datasets/` must not shadow the package.
    for folder in (tmp_path, ROOT):
        subprocess.run([python, "-c", program], cwd=folder, check=True)
