"""Markdown that shows any text literally: a name with a pipe, a line break or HTML in it breaks no table or page."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from rhn.text import one_line

# What begins emphasis, code, a link's target or an escape. An underscore inside a word begins nothing.
_MARKUP = re.compile(r"[\\`*~]|(?<=\])[(:]|(?<!\w)_|_(?!\w)")


def escaped(text: str) -> str:
    """`text` on one line, to be read as plain text in a paragraph, a list item or a cell of a table."""
    line = one_line(" ".join(text.split()))
    return html.escape(_MARKUP.sub(r"\\\g<0>", line), quote=False).replace("|", "&#124;")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain texts."""
    lines = ([escaped(cell) for cell in row] for row in (head, *rows))
    first, *others = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([first, "| " + " | ".join(["---"] * len(head)) + " |", *others])
