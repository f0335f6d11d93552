"""Modules of the suite are found under the names that they had in version 0.1."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rhn.moved import MOVED

OLD_NAMES = [name for name in MOVED if name.startswith("rhn_conformance.")]


@pytest.mark.parametrize("first", ["", "import rhn; "])
def test_every_old_name_finds_the_new_module(first: str) -> None:
    code = first + "import importlib; print(*(importlib.import_module(name).__name__ for name in " + f"{OLD_NAMES}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [MOVED[name] for name in OLD_NAMES], done.stderr


def test_a_module_that_never_was_is_still_not_found() -> None:
    code = "import rhn_conformance.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError: No module named 'rhn_conformance.nothing'" in done.stderr
