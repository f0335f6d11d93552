"""What is said of versions in more than one place is the same everywhere."""

import configparser
import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def minimum_versions(requirements: list[str]) -> dict[str, str]:
    """The package and N of every `package>=N`."""
    found = [re.match(r"([\w-]+)>=([\w.]+)", requirement) for requirement in requirements if ">=" in requirement]
    return {match[1].lower(): match[2] for match in found if match}


def pinned_versions(path: Path) -> dict[str, str]:
    """The package and N of every line `package==N`."""
    return {match[1].lower(): match[2] for match in re.finditer(r"^([\w-]+)==([\w.]+)", path.read_text(), re.MULTILINE)}


def test_the_citation_names_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PYPROJECT["project"]["version"]


def test_the_changelog_names_the_version() -> None:
    assert f"## [{PYPROJECT['project']['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_lowest_versions_are_those_that_are_promised() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    promised = minimum_versions(
        [
            *PYPROJECT["project"]["dependencies"],
            *extras["train"],
            *extras["tensorboard"],
            *extras["search"],
            *extras["torch"],
            *PYPROJECT["dependency-groups"]["test"],
        ]
    )
    pinned = pinned_versions(ROOT / "constraints-lowest.txt")
    assert pinned.keys() == promised.keys()
    for name, version in promised.items():
        assert re.fullmatch(rf"{re.escape(version)}(\.0)*", pinned[name]), f"{name}: {version} against {pinned[name]}"


def test_contributing_lists_the_environments_of_tox() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    all_of_them = {section.removeprefix("testenv:") for section in tox.sections() if section.startswith("testenv:")}
    rows = re.findall(r"^\| (`[^|]*) \| [^|]* \| (yes|) ?\|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    listed = {name: is_run for names, is_run in rows for name in re.findall(r"`(\w+)`", names)}
    assert listed.keys() == all_of_them
    assert {name for name in listed if listed[name]} == set(tox["tox"]["env_list"].split(", "))
