"""Pieces of a self-contained HTML page; nothing on it is loaded from elsewhere, and none of it is a program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from rhn.training.report.charts import Line, line_chart, line_style

_STYLE = Path(__file__).with_name("page.css")


def page(title: str, body: str) -> bytes:
    """The whole page, UTF-8. `title` is plain text, `body` is HTML."""
    document = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>
{_STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
{body}
</body>
</html>
"""
    return document.encode()


def section(title: str, *content: str) -> str:
    """A heading and what stands below it (HTML)."""
    return "\n".join(["<section>", f"<h2>{escape(title)}</h2>", *content, "</section>"])


def values(items: Mapping[str, Any]) -> str:
    """Names and values (plain text), in as many columns as the page has room for."""
    rows = (f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in items.items())
    return "\n".join(['<dl class="values">', *rows, "</dl>"])


def figures(items: Iterable[tuple[str, str, str]]) -> str:
    """Numbers to be seen first: name, number and a remark or "" (plain text)."""
    rows = (
        f"<div><dt>{escape(name)}</dt><dd><strong>{escape(number)}</strong>"
        f'<span class="quiet">{escape(remark)}</span></dd></div>'
        for name, number, remark in items
    )
    return "\n".join(['<dl class="figures">', *rows, "</dl>"])


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text that scrolls sideways where it is too wide."""
    lines = [_row("th", header), *(_row("td", row) for row in rows)]
    return "\n".join(
        ['<div class="wide" role="region" aria-label="table" tabindex="0"><table>', *lines, "</table></div>"]
    )


def key(labels: Sequence[str]) -> str:
    """Which line is which: label i (plain text) belongs to the lines of style i."""
    rows = []
    for style, label in enumerate(labels):
        colour, dash = line_style(style)
        swatch = (
            f'<span class="swatch" style="border-top-style: {dash}; border-top-color: var(--line-{colour})"></span>'
        )
        rows.append(f"<li>{swatch}{escape(label)}</li>")
    return "\n".join(['<ul class="key">', *rows, "</ul>"])


def chart(title: str, lines: Sequence[Line]) -> str:
    """A line chart below its title (plain text)."""
    return f"<figure>\n<figcaption>{escape(title)}</figcaption>\n{line_chart(title, lines)}\n</figure>"


def charts(drawn: Iterable[str]) -> str:
    """Charts side by side, where there is room."""
    return "\n".join(['<div class="charts">', *drawn, "</div>"])


def _row(cell: str, texts: Sequence[str]) -> str:
    scope = ' scope="col"' if cell == "th" else ""
    return "<tr>" + "".join(f"<{cell}{scope}>{escape(text)}</{cell}>" for text in texts) + "</tr>"
