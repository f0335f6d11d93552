"""Line charts of training, drawn by matplotlib: as SVG whose colours follow the page around it, and as PNG."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rhn.training.score import UNITS, in_units

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

_MOST_MARKERS = 30  # of more points than these, the line alone is easier to read


@dataclass(frozen=True)
class Line:
    """One line of a chart: `values` over `epochs`, drawn in the style number `style`; see `line_style`."""

    label: str
    epochs: Sequence[int]
    values: Sequence[float]
    style: int


def line_style(style: int) -> tuple[int, str]:
    """Number of the colour and kind of dash of a style: the first 18 differ, and neighbours differ in both."""
    return style % COLOURS, _DASHES[(style + style // COLOURS) % len(_DASHES)]


def line_chart(title: str, lines: Sequence[Line]) -> str:
    """An `<svg>` element of `lines` over epochs, for a page with the custom properties of page.css.

    Values that spread over more than a factor of four, as those of perplexity do, get a logarithmic axis.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # without pyplot: no display and no global state
    from matplotlib.ticker import MaxNLocator

    # Text stays text; identifiers are the same at every drawing, and differ between the charts of a page.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 10.5}):
        figure = Figure(figsize=(4.8, 2.7), layout="constrained")
        axes = figure.subplots()
        for line in lines:
            colour, dash = line_style(line.style)
            marker = "." if len(line.epochs) <= _MOST_MARKERS else ""
            axes.plot(line.epochs, line.values, color=_LINES[colour], linestyle=dash, linewidth=1.8, marker=marker)
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


def learning_curves(history: list[dict[str, Any]], level: str, title: str) -> bytes:
    """A PNG: training, validation and test score by epoch, and the learning rate below.

    Args:
        history: rows as `rhn.training.loop` makes them, at least one.
        level: "word", "char" or "byte".
        title: above the picture.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(7, 5), layout="constrained")
    scores, rates = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    for name, label in (("train_nats", "train (with dropout)"), ("valid_nats", "valid"), ("test_nats", "test")):
        scores.plot(epochs, [in_units(row[name], level) for row in history], marker=".", label=label)
    scores.set(title=title, ylabel=UNITS[level])
    scores.legend()
    scores.grid(alpha=0.3)
    rates.plot(epochs, [row["learning_rate"] for row in history], marker=".", color="0.3")
    rates.set(xlabel="epoch", ylabel="learning rate")
    rates.grid(alpha=0.3)
    rates.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    if level == "word":
        scores.set_yscale("log")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()


def _scale(axes: Any, values: Sequence[float]) -> None:
    """Choose the vertical axis, with plain numbers at its ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    drawn = [value for value in values if math.isfinite(value)]  # a perplexity may be infinite
    low, high = min(drawn, default=0.0), max(drawn, default=0.0)
    if low > 0 and high > 4 * low:
        axes.set_yscale("log")
        within_two_decades = high < 100 * low
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if within_two_decades else (1.0,)))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _for_a_page(svg: str, description: str) -> str:
    """The drawing as an element of a page: without preamble, colours as variables, described for who cannot see it."""
    svg = svg[svg.index("<svg") :]
    referred = set(re.findall(r'(?:url\(|href=")#([\w-]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in referred else "", svg)
    svg = re.sub("|".join(_VARIABLES), lambda match: _VARIABLES[match[0]], svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(description)}"', 1)


def _in_words(title: str, lines: Sequence[Line]) -> str:
    ends = "; ".join(f"{line.label} from {line.values[0]:.4g} to {line.values[-1]:.4g}" for line in lines)
    return f"{title} by epoch: {ends}"
