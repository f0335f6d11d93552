from pathlib import Path

import pytest
from readme_code import python_example


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # it may save something
    exec(compile(python_example("rhn_jax"), "README.md", "exec"), {"__name__": "__main__"})
