"""Modules that have moved are still found by their old names."""

from __future__ import annotations

import importlib

import pytest

from rhn.moved import MOVED


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_old_name_gives_the_module_of_the_new_one(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        module = importlib.import_module(new)
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    monkeypatch.delitem(importlib.sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {new}"):
        assert importlib.import_module(old) is module
    assert module.__spec__.name == new
