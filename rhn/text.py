"""Text of unknown origin, made harmless where it is shown: on a terminal, and in a Markdown table."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

# Signs that CommonMark may take for emphasis, code, a link, a deletion, the end of a cell, or for an escape.
# An underscore between letters means nothing to it.
_MARKUP = re.compile(r"[\\`*\[\]~|]|(?<![^\W_])_|_(?![^\W_])")


def one_line(text: str) -> str:
    """`text` in one line that a terminal only prints: what it would obey, or nobody would see, as in `repr`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def markdown_text(text: str) -> str:
    """`text` in one line of Markdown that shows it letter by letter, in a table cell too."""
    return _MARKUP.sub(r"\\\g<0>", html.escape(one_line(text), quote=False))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of plain text, ending in a newline."""
    lines = [[markdown_text(cell) for cell in row] for row in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
