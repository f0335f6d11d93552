"""The code that readers copy runs: of the README, and of the page on the layer."""

import re
from pathlib import Path

import pytest
from readme_code import README, python_example

PAGE = README.parent / "docs" / "use_the_layer_flax.md"


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # it may save something
    exec(compile(python_example("rhn_jax"), "README.md", "exec"), {"__name__": "__main__"})


def test_the_page_on_the_layer_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    exec(compile("\n".join(blocks), PAGE.name, "exec"), {"__name__": "__main__"})
