"""Pages of the documentation that are made of other files, and the Markdown of GitHub made that of MkDocs."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from rhn.markdown import escaped, table
from rhn.training.options import OPTIONS
from rhn.training.options.row import Option
from rhn.training.recipes import RECIPES
from rhn.training.terminal.help import GROUPS, describe_recipe

ROOT = Path(__file__).parents[1]

# Files of the repository that are pages of the site, and the page that each becomes.
COPIED = {
    "SPEC.md": "specification.md",
    "CONFORMANCE.md": "conformance_record.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "conformance/README.md": "conformance.md",
    "datasets/README.md": "data.md",
}
# Where a link to a file or folder that is no page leads instead.
INSTEAD = {"README.md": "index.md", "examples/third_party_backend": "add_a_backend.md"}


# ---------------------------------------------------------------------------------------------------------------------
# Generated content
# ---------------------------------------------------------------------------------------------------------------------


def options_page() -> str:
    """Every option of the command line, by group."""
    sections = [
        "# Options\n\n"
        "Every option of the command line, from the table that the command line itself uses (`rhn.training.options`)."
        " An option is given after `with`, as `name=value`; the names of the authors' programs work too.\n\n"
        "`python -m rhn_torch.train help train` prints the options of one command, `print_config` the value of every"
        " option. An option marked ↻ may get another value when a run is resumed.\n"
    ]
    for group, title in GROUPS.items():
        members = [option for option in OPTIONS.values() if option.group == group]
        if members:
            sections.append("\n".join([f"## {title}\n", *map(_option, members)]))
    return "\n".join(sections)


def _option(option: Option) -> str:
    """One option as an entry whose name can be linked to."""
    again = " ↻" if option.may_change else ""
    aliases = f" Authors' name: {', '.join(f'`{alias}`' for alias in option.aliases)}." if option.aliases else ""
    commands = ", ".join(f"`{command}`" for command in option.commands)
    meaning = escaped(f"{option.meaning[:1].upper()}{option.meaning[1:]}.")
    expected = escaped(option.accepted.expected)
    return (
        f"### `{option.name}` {{ #{option.name} }}\n\n{meaning}{again}\n\n"
        f"Default `{option.default!r}`. Expected: {expected}.{aliases} Used by {commands}.\n"
    )


def recipe_table() -> str:
    """Every recipe with the paper's row."""
    return table(["recipe", "trains"], [[name, describe_recipe(name)] for name in RECIPES])


def included(path: str) -> str:
    """A file of the repository as a code block."""
    language = {"py": "python"}.get(path.rpartition(".")[2], path.rpartition(".")[2])
    return f"```{language}\n{(ROOT / path).read_text(encoding='utf-8').rstrip()}\n```"


# ---------------------------------------------------------------------------------------------------------------------
# Markdown of GitHub -> Markdown of MkDocs
# ---------------------------------------------------------------------------------------------------------------------

_FENCE = re.compile(r" *```")


def with_links_of_the_site(markdown: str, source: str, target: str) -> str:
    """Links of the file `source` of the repository, for its page `target`.

    A link to a page leads there. A link to another file of the repository becomes its text: the site holds no sources.

    Raises:
        ValueError: a link leads to nothing.
    """

    def rewritten(match: re.Match[str]) -> str:
        text, link = match[1], match[2]
        if re.match(r"[a-z]+:|#", link):
            return match[0]
        path, _, anchor = link.partition("#")
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        page = COPIED.get(file, INSTEAD.get(file))
        is_generated = file.removeprefix("docs/") in (*COPIED.values(), "options.md")
        if page is None and not is_generated and not (ROOT / file).exists():
            raise ValueError(f"{source} links to {link}, which does not exist")
        if page is None and file.startswith("docs/"):
            page = file.removeprefix("docs/")
        if page is None:
            return text
        relative = posixpath.relpath(page, posixpath.dirname(target) or ".")
        return f"[{text}]({relative}{'#' + anchor if anchor else ''})"

    return _outside_code(markdown, lambda text: re.sub(r"(?<!!)\[([^\]\n]+)\]\(([^)\s]+)\)", rewritten, text))


def _outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """`change` the text between fenced code blocks."""
    pieces = re.split(r"(^ *```.*?^ *```[^\n]*$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(piece if i % 2 else change(piece) for i, piece in enumerate(pieces))


def with_wide_indent(markdown: str) -> str:
    """Lists with what belongs to an item indented by four spaces per level, and an empty line before the first item.

    CommonMark indents by the width of the marker, and lets a list follow a paragraph at once.
    """
    lines: list[str] = []
    offsets: list[int] = []  # columns at which the content of the open items begins
    in_code = False
    for line in markdown.split("\n"):
        if not line.strip():
            lines.append("")
            continue
        indent = len(line) - len(line.lstrip(" "))
        while not in_code and offsets and indent < offsets[-1]:
            offsets.pop()
        base = offsets[-1] if offsets else 0
        content = line[base:] if line[:base].isspace() or not base else line.lstrip(" ")
        marker = None if in_code else re.match(r"([*-]|\d+\.) +(?=\S)", content)
        if marker and not offsets and lines and lines[-1] and not re.match(r" *([*-]|\d+\.) ", lines[-1]):
            lines.append("")
        lines.append(" " * (4 * len(offsets)) + content)
        if marker:
            offsets.append(base + marker.end())
        if _FENCE.match(line):
            in_code = not in_code
    return "\n".join(lines)
