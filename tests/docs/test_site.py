"""The pages of the documentation: their commands are understood, their code runs, their links lead somewhere."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from rhn.training.options import OPTIONS
from rhn.training.options.row import COMMANDS
from rhn.training.recipes import RECIPES
from rhn.training.search.named_spaces import SPACES
from rhn.training.search.request import SEARCH_OPTIONS, read_request
from rhn.training.terminal.read_words import read_words
from rhn_conformance.cli import _parser as conformance_parser

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from check_site import problems  # noqa: E402
from docs_pages import (  # noqa: E402
    COPIED,
    included,
    options_page,
    recipe_table,
    with_links_of_the_site,
    with_wide_indent,
)

DOCS = ROOT / "docs"
PAGES = [*DOCS.rglob("*.md"), *(ROOT / name for name in ("README.md", *COPIED))]
# The pages of the ports are run by the tests of the ports: these pages need no framework.
FRAMEWORK_FREE = [path for path in PAGES if not re.search("use_the_layer_|README|CHANGELOG", path.name)]

# First words of commands that are not ours.
OTHERS = ("pip", "git", "cd", "export", "tox", "pytest", "ruff", "mypy", ".", "mkdocs", "pre-commit", "pip-audit")


def names(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


def commands_of(page: Path) -> list[list[str]]:
    """Commands in shell blocks, and commands of ours within the text. A changelog names parts of commands."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    if page.name != "CHANGELOG.md":
        lines += re.findall(
            r"`((?:python (?:-m rhn|benchmarks|tools)|rhn-conformance )[^`]*)`", re.sub(r"\n +", " ", text)
        )
    return [words for line in lines for part in line.split("&&") if (words := shlex.split(part, comments=True))]


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_command_is_understood(page: Path) -> None:
    for words in commands_of(page):
        line = " ".join(words)
        if re.match(r"(torchrun|srun|python)\b.* -m rhn_(torch|tf|jax)\.train\b", line):  # after a launcher, too
            read_words(words[words.index("-m") + 2 :], RECIPES)
        elif re.match(r"(\w+=\w+ )?python -m rhn_(torch|tf|jax)\.search\b", line):
            if words[-1] != "help":
                read_request("torch", words[words.index("-m") + 2 :])
        elif words[0] == "rhn-conformance":
            if len(words) > 1:
                conformance_parser().parse_args(words[1:])
        elif words[:1] == ["python"] and words[1] != "-m":
            assert (ROOT / words[1]).is_file(), line
        else:
            assert words[0] in OTHERS or words[1:3] in (["-m", "venv"], ["-m", "rhn.training.report"]), line


@pytest.mark.parametrize("page", FRAMEWORK_FREE, ids=names(FRAMEWORK_FREE))
def test_python_on_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        if "load_corpus(" not in block:  # would download, or reads a file of the reader
            exec(block, {})


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_lead_to_files_of_the_repository(page: Path) -> None:
    source = page.relative_to(ROOT).as_posix()
    with_links_of_the_site(page.read_text(encoding="utf-8"), source, COPIED.get(source, "page.md"))


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`((?:tests|benchmarks|tools|examples|docs|rhn)/[\w/.]+)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_a_link_that_leads_to_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"SPEC\.md links to rhn/none\.py, which does not exist"):
        with_links_of_the_site("[x](rhn/none.py)", "SPEC.md", "specification.md")


def test_links_are_those_of_the_site() -> None:
    text = "[spec](../SPEC.md#3-state) [page](options.md) [source](../rhn/spec) [web](https://example.org)"
    assert with_links_of_the_site(text, "docs/train.md", "api/train.md") == (
        "[spec](../specification.md#3-state) [page](../options.md) source [web](https://example.org)"
    )


def test_lists_are_indented_as_mkdocs_wants_it() -> None:
    text = "text\n* a\n  b\n\n  | t |\n  * c\n1. d\n\n       code\n\n```\n* no list\n  kept\n```\n"
    assert with_wide_indent(text) == (
        "text\n\n* a\n    b\n\n    | t |\n    * c\n1. d\n\n        code\n\n```\n* no list\n  kept\n```\n"
    )


def test_the_page_of_options_has_all_of_them() -> None:
    page = options_page()
    for name, option in OPTIONS.items():
        assert f"### `{name}` {{ #{name} }}" in page
        assert f"Default `{option.default!r}`" in page
    assert all(f"`{command}`" in page for command in COMMANDS)
    assert all(f"| {name} |" in recipe_table() for name in RECIPES)


def test_the_page_of_the_search_names_its_options_and_spaces() -> None:
    page = (DOCS / "search.md").read_text()
    assert all(f"`{name}`" in page for name in (*SEARCH_OPTIONS, *SPACES))


def test_a_file_is_shown_as_code() -> None:
    assert included("SPEC.md").startswith("```md\n# Specification")


def test_the_check_of_the_site_finds_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="b.html#x"><a href="#top"><a href="c.html"><a href="b.html#y"><a href="https://e.org">'
        '<script src="https://e.org/x.js"></script><img src="none.png">'
    )
    (tmp_path / "b.html").write_text('<p id="x">')
    (tmp_path / "s.css").write_text("@font-face { src: url(//e.org/f.woff2) } p { background: url(b.html) }")
    assert problems(tmp_path) == [
        "a.html loads https://e.org/x.js",
        "a.html links to c.html, which does not exist",
        "a.html links to b.html#y, and there is no such place on that page",
        "a.html links to none.png, which does not exist",
        "s.css loads //e.org/f.woff2",
    ]
