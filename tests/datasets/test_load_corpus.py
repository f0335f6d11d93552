"""load_corpus: its arguments, the names it knows, and what it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rhn_datasets
from rhn_datasets import CORPORA, DataError, load_corpus


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("enwiki8",), {}, r"there is no corpus 'enwiki8' \(did you mean enwik8\?\); known names: ptb, enwik8, text8"),
        (("ptb",), {"level": "char"}, "level='char' is not accepted for ptb: expected word"),
        (("pydoc",), {"level": "line"}, "level='line' is not accepted for pydoc: expected byte or char or word"),
        (("pydoc",), {"split": (0.9, 0.1)}, "expected three positive fractions"),
        (("pydoc",), {"split": (0.9, 0.1, 0.1)}, "expected three positive fractions .* that sum to 1"),
        (("pydoc",), {"split": (1.0, 0.0, 0.0)}, "expected three positive fractions"),
        (("pydoc", "here"), {}, "data_path has no meaning for pydoc"),
        (("enwik8",), {"split": (0.8, 0.1, 0.1)}, "has no meaning for enwik8: its split is fixed"),
        (("ptb", ["a", "b", "c"]), {}, "expected one folder for ptb"),
        (("text",), {}, "the corpus text needs data_path"),
        (("text", "nowhere"), {}, "expected one file, a folder .*: there is no nowhere.train.txt, nowhere.valid.txt"),
        (("text", [__file__, __file__]), {}, "expected one file, a folder with .*, or three files$"),
        (("text", [__file__] * 3), {"split": (0.8, 0.1, 0.1)}, "train, valid and test are files of their own"),
    ],
)
def test_what_is_impossible_is_refused_with_one_sentence(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_corpus(*arguments, **options)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((5,), {}),
        (([],), {}),
        (("text", 5), {}),
        (("text", "a\0b"), {}),
        (("text", "x" * 5000), {}),
        (("text", "~nosuchuser/x"), {}),
        (("text", [1, 2, 3]), {}),
        (("pydoc",), {"level": []}),
        (("pydoc",), {"split": 1}),
        (("pydoc",), {"split": ("a", "b", "c")}),
        (("pydoc",), {"cache_path": 5}),
        (("enwik8", "x" * 5000), {"download": False}),
    ],
)
def test_arguments_of_foreign_types_are_refused_with_one_sentence(
    arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(DataError) as refused:
        load_corpus(*arguments, **options)
    assert "\n" not in str(refused.value)


def test_the_names_are_those_of_the_documentation() -> None:
    names = ["ptb", "enwik8", "text8", "ptb_char", "wikitext2", "wikitext103", "text", "pydoc"]
    assert list(CORPORA) == names
    page = (Path(__file__).parents[2] / "datasets" / "README.md").read_text()
    assert [line.split("`")[1] for line in page.split("### Checks")[0].splitlines() if line.startswith("| `")] == names


def test_the_import_needs_numpy_only() -> None:
    program = """
import sys
for name in ("requests", "tqdm", "filelock"):
    sys.modules[name] = None
import rhn_datasets
rhn_datasets.load_corpus("pydoc")
"""
    environment = os.environ | {"PYTHONPATH": str(Path(rhn_datasets.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_a_home_is_needed_for_a_cache_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text("some text " * 20)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # nobody's
    assert len(load_corpus("text", tmp_path / "text.txt").train) == 180
    with pytest.raises(DataError, match="there is no such home folder"):
        load_corpus("enwik8", download=False)
