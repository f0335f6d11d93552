"""The code that readers copy runs."""

import re
from pathlib import Path

import pytest
from readme_code import python_example

PAGE = Path(__file__).parents[2] / "docs" / "use_the_layer_keras.md"


def run(code: str, name: str) -> None:
    exec(compile(code, name, "exec"), {"__name__": "__main__"})


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # examples save something


def test_the_example_of_the_readme_runs() -> None:
    run(python_example("rhn_tf"), "README.md")


def test_the_page_on_the_layer_runs() -> None:
    run("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)), PAGE.name)
