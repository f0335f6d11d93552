"""The worked example: a backend of somebody else's making, found through its entry point and put to the suite."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import pytest

from rhn.backend import installed_backends
from rhn_conformance import cli
from rhn_conformance.results import Verdict, read_jsonl

EXAMPLE = Path(__file__).parents[2] / "examples" / "third_party_backend"


@pytest.fixture
def installed_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `pip install` of the example leaves behind: its module, and its metadata with the entry points."""
    pytest.importorskip("torch", reason="the example is written in PyTorch")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    metadata = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLE)


@pytest.mark.usefixtures("installed_example")
def test_the_example_conforms(tmp_path: Path) -> None:
    assert "plain" in installed_backends()
    results = tmp_path / "results.jsonl"
    excuses = EXAMPLE / "expected_failures.toml"
    arguments = ["--backend", "plain", "--expected-failures", str(excuses), "--results", str(results)]
    assert cli.main(["run", *arguments]) == 0
    counts = Counter(r.verdict for r in read_jsonl(results)[1])
    assert counts.keys() == {Verdict.PASSED, Verdict.EXPECTED_FAILURE}
    assert counts[Verdict.PASSED] > 10 * counts[Verdict.EXPECTED_FAILURE]
