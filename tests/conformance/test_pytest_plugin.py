"""The plug-in does its work when asked, and costs nothing when not."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

# An installation that is older than the entry point must be told of the plug-in.
LOADED = any(entry.value == "rhn_conformance.pytest_plugin" for entry in entry_points(group="pytest11"))
PLUGIN = [] if LOADED else ["-p", "rhn_conformance.pytest_plugin"]


def pytest_on_package(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", *PLUGIN, "-p", "no:cacheprovider", "-q", "--pyargs", "rhn_conformance"]
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=240, check=False)


def test_it_runs_the_suite(tmp_path: Path) -> None:
    done = pytest_on_package(tmp_path, "--rhn-backend", "reference", "-k", "micro-steps or tied-float32")
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout  # micro-steps twice, tied and weight-decay-tied once


def test_an_expected_failure_is_an_xfail_and_a_wrong_one_fails(tmp_path: Path) -> None:
    (tmp_path / "list.toml").write_text('[[expected_failure]]\ncase = "plain"\nreason = "no GPU"\n')
    options = ("--rhn-backend", "reference", "-k", "plain", "--rhn-expected-failures", "list.toml")
    assert "2 xfailed" in pytest_on_package(tmp_path, *options, "--rhn-device", "gpu").stdout
    wrong = pytest_on_package(tmp_path, *options)
    assert wrong.returncode == 1
    assert "unexpected pass" in wrong.stdout


def test_a_stale_entry_fails(tmp_path: Path) -> None:
    (tmp_path / "list.toml").write_text('[[expected_failure]]\ncase = "gone"\nreason = "an old one"\n')
    options = ("--rhn-backend", "reference", "-k", "shortest", "--rhn-expected-failures", "list.toml")
    done = pytest_on_package(tmp_path, *options)
    assert done.returncode != 0
    assert "gone/* of reference matches nothing" in done.stdout + done.stderr


def test_no_backend_is_an_error(tmp_path: Path) -> None:
    done = pytest_on_package(tmp_path)
    assert done.returncode != 0
    assert "name at least one backend with --rhn-backend" in done.stdout + done.stderr


def test_loading_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import rhn_conformance.pytest_plugin;"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["rhn_conformance"]
