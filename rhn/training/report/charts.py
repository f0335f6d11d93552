"""Line charts of training, drawn by matplotlib as SVG whose colours follow the page around it."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from markupsafe import Markup

COLOURS = 6  # custom properties --line-0 ... of page.css
_DASHES = ("solid", "dashed", "dotted")  # words of matplotlib and of CSS alike

# matplotlib knows no CSS variables: it draws in colours that stand for them.
_LINES = [f"#0000a{i}" for i in range(COLOURS)]
_TEXT, _GRID = "#0000b0", "#0000b1"
_VARIABLES = {
    **{colour: f"var(--line-{i})" for i, colour in enumerate(_LINES)},
    _TEXT: "var(--quiet)",
    _GRID: "var(--rule)",
}

_BEYOND = 1e100  # a perplexity may be infinite, but an axis must not be: the line has a gap there
_MOST_MARKERS = 30  # with more points, the line alone is easier to read


@dataclass(frozen=True)
class Line:
    """One line of a chart: `values` over `epochs`, drawn in the style number `style`; see `line_style`."""

    label: str
    epochs: tuple[float, ...]
    values: tuple[float, ...]
    style: int


@dataclass(frozen=True)
class KeyEntry:
    """How a line looks: the number of its colour, and the CSS name of its dash."""

    label: str
    colour: int
    dash: str


@dataclass(frozen=True)
class Chart:
    """A drawing, as an `<svg>` element, and its title as plain text."""

    title: str
    svg: Markup


def line_style(style: int) -> tuple[int, str]:
    """Number of the colour and kind of dash of a style: the first 18 styles differ, and neighbours differ in both."""
    return style % COLOURS, _DASHES[(style + style // COLOURS) % len(_DASHES)]


def line_key(labels: Sequence[str]) -> list[KeyEntry]:
    """The entries of the key: label i belongs to the lines of style i."""
    return [KeyEntry(label, *line_style(style)) for style, label in enumerate(labels)]


def line_chart(title: str, lines: Sequence[Line]) -> Chart:
    """A chart of `lines` over epochs, for a page with the custom properties of page.css.

    The axis is logarithmic if the values spread over more than a factor of four, as perplexities do.
    """
    return Chart(title, _drawing(title, tuple(lines)))


@lru_cache(maxsize=16)  # pages written one after the other show the same charts
def _drawing(title: str, lines: tuple[Line, ...]) -> Markup:
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # without pyplot: no display and no global state
    from matplotlib.ticker import MaxNLocator

    # Text stays text; identifiers are the same at every drawing, and differ between the charts of a page.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": ascii(title), "font.size": 10.5}):
        figure = Figure(figsize=(4.8, 2.7), layout="constrained")
        axes = figure.subplots()
        for line in lines:
            colour, dash = line_style(line.style)
            marker = "." if len(line.epochs) <= _MOST_MARKERS else ""
            values = [value if abs(value) < _BEYOND else math.nan for value in line.values]
            axes.plot(line.epochs, values, color=_LINES[colour], linestyle=dash, linewidth=1.8, marker=marker)
        _scale(axes, [value for line in lines for value in line.values])
        axes.set_xlabel("epoch", color=_TEXT)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=(1, 2, 5, 10)))
        axes.tick_params(which="both", color=_GRID, labelcolor=_TEXT)
        axes.grid(color=_GRID, linewidth=0.8)
        axes.spines[:].set_visible(False)
        drawing = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawing, format="svg", transparent=True, metadata=no_metadata)
    return _for_a_page(drawing.getvalue(), _in_words(title, lines))


def _scale(axes: Any, values: Sequence[float]) -> None:
    """Choose the vertical axis, with plain numbers at its ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    drawn = [value for value in values if abs(value) < _BEYOND]
    low, high = min(drawn, default=0.0), max(drawn, default=0.0)
    if low == high:  # a constant rate or a single epoch: rounding must not make a range
        axes.set_ylim(low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
    if low > 0 and high > 4 * low:
        axes.set_yscale("log")
        within_two_decades = high < 100 * low
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if within_two_decades else (1.0,)))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _for_a_page(svg: str, description: str) -> Markup:
    """The drawing as an element of a page: without preamble, colours as variables, with a description in words."""
    svg = svg[svg.index("<svg") :]
    referred = set(re.findall(r'(?:url\(|href=")#([\w-]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in referred else "", svg)
    svg = re.sub("|".join(_VARIABLES), lambda match: _VARIABLES[match[0]], svg)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(description)}"', 1))


def _in_words(title: str, lines: Sequence[Line]) -> str:
    ends = "; ".join(f"{line.label} from {line.values[0]:.4g} to {line.values[-1]:.4g}" for line in lines)
    return f"{title} by epoch: {ends}"
