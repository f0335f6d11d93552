"""Draws the figures of README and documentation, docs/figures/*.svg, the same bytes every time.

    python tools/figures.py [FIGURE ...]

Needs matplotlib and this project installed. The background is solid and light, so that the figures can be read on
light and on dark pages.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from rhn.training.recipes.published_scores import PAPER, PAPER_ROWS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "figures"
DEPTH_EXPERIMENT = ROOT / "benchmarks" / "results" / "depth_experiment.json"

BACKGROUND, PANEL, INK, SLATE, GREY, FAINT = "#ffffff", "#f3f5f7", "#1f2933", "#52606d", "#7b8794", "#c5ced6"
BLUE, ORANGE = "#2563a8", "#c8501e"
CARRY = "#0f766e"
MASK_COLOURS = {"E": "#7c3aed", "I": "#2563a8", "S": "#c8501e", "O": "#b4235a"}

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 13,
    "mathtext.fontset": "dejavusans",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": BACKGROUND,
    "axes.facecolor": BACKGROUND,
    "svg.fonttype": "path",  # looks the same whatever fonts the reader has
    "svg.hashsalt": "recurrent-highway-networks",  # ids in the file do not change from run to run
}

Point = tuple[float, float]


# ---------------------------------------------------------------------------------------------------------------------
# Pieces of diagrams, in units of the axes
# ---------------------------------------------------------------------------------------------------------------------


def canvas(figure: Figure, rectangle: tuple[float, float, float, float], width: float, height: float) -> Axes:
    """Empty axes without frame, from (0, 0) to (width, height), at `rectangle` (left, bottom, width, height)."""
    axes = figure.add_axes(rectangle)
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return axes


def arrow(axes: Axes, start: Point, end: Point, colour: str = INK, width: float = 1.8, curve: str = "arc3") -> None:
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=8 + 3 * width,
            color=colour,
            linewidth=width,
            connectionstyle=curve,
            shrinkA=0,
            shrinkB=0,
            joinstyle="miter",
            capstyle="butt",
            zorder=2,
        )
    )


def line(axes: Axes, *points: Point, colour: str = INK, width: float = 1.8) -> None:
    axes.plot(*zip(*points, strict=True), color=colour, linewidth=width, solid_joinstyle="round", zorder=2)


def dot(axes: Axes, centre: Point, colour: str = INK) -> None:
    """A place where a line branches."""
    axes.add_patch(Circle(centre, 0.1, color=colour, zorder=3))


def disc(axes: Axes, centre: Point, radius: float, label: str, fill: str, edge: str, size: float = 13) -> None:
    """A circle with a white label."""
    axes.add_patch(Circle(centre, radius, facecolor=fill, edgecolor=edge, linewidth=1.8, zorder=4))
    axes.text(*centre, label, color="white", fontsize=size, ha="center", va="center_baseline", zorder=5, weight="bold")


def operation(axes: Axes, centre: Point, marker: str, edge: str = INK) -> None:
    """A circle with a drawn "x" or "+", which sits more exactly than a letter would."""
    axes.add_patch(Circle(centre, 0.34, facecolor=BACKGROUND, edgecolor=edge, linewidth=1.8, zorder=4))
    axes.plot(*centre, marker=marker, markersize=8 if marker == "x" else 10, markeredgewidth=2, color=INK, zorder=5)


def box(axes: Axes, centre: Point, size: Point, label: str, edge: str = INK) -> None:
    x, y = centre[0] - size[0] / 2, centre[1] - size[1] / 2
    patch = FancyBboxPatch(
        (x, y), *size, boxstyle="round,pad=0,rounding_size=0.18", facecolor=BACKGROUND, edgecolor=edge, zorder=3
    )
    patch.set_linewidth(1.8)
    axes.add_patch(patch)
    axes.text(*centre, label, ha="center", va="center_baseline", zorder=5)


# ---------------------------------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------------------------------


def stacked_and_deep_transition() -> Figure:
    """Twelve states wired in two ways; the longest path through them is numbered."""
    depth, steps = 3, 4
    width, height = 6.0, 6.6
    figure = Figure(figsize=(7.2, 4.0))
    figure.patch.set_facecolor(BACKGROUND)
    left = canvas(figure, (0.0, 0.0, 0.5, 1.0), width, height)
    right = canvas(figure, (0.5, 0.0, 0.5, 1.0), width, height)
    radius = 0.36

    def place(step: int, level: int) -> Point:
        return 0.9 + 1.4 * step, 1.95 + 1.25 * level

    def between(axes: Axes, start: Point, end: Point, colour: str, line_width: float) -> None:
        """Arrow from rim to rim of two states."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        scale = (radius + 0.06) / (dx**2 + dy**2) ** 0.5
        ends = (start[0] + scale * dx, start[1] + scale * dy), (end[0] - scale * dx, end[1] - scale * dy)
        arrow(axes, *ends, colour, line_width)

    stacked_path = [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (3, 2)]
    transition_path = [(step, level) for step in range(steps) for level in range(depth)]
    up = {((s, k), (s, k + 1)) for s in range(steps) for k in range(depth - 1)}
    along = {((s, k), (s + 1, k)) for s in range(steps - 1) for k in range(depth)}
    onwards = {((s, depth - 1), (s + 1, 0)) for s in range(steps - 1)}

    for axes, colour, title, levels, count, edges, path in (
        (left, BLUE, "Stacked", "layers", f"d + T - 1 = {depth + steps - 1}", up | along, stacked_path),
        (
            right,
            ORANGE,
            "Deep transition",
            "micro-steps",
            rf"d \cdot T = {depth * steps}",
            up | onwards,
            transition_path,
        ),
    ):
        on_path = set(pairwise(path))
        for start, end in sorted(edges):
            lit = (start, end) in on_path
            between(axes, place(*start), place(*end), colour if lit else FAINT, 2.6 if lit else 1.6)
        for step in range(steps):
            x, bottom = place(step, 0)
            _, top = place(step, depth - 1)
            arrow(axes, (x, bottom - 0.95), (x, bottom - radius - 0.06), FAINT, 1.6)
            arrow(axes, (x, top + radius + 0.06), (x, top + 0.95), FAINT, 1.6)
            for level in range(depth):
                number = path.index((step, level)) + 1 if (step, level) in path else None
                fill = colour if number else BACKGROUND
                disc(axes, place(step, level), radius, str(number or ""), fill, colour if number else FAINT)
        subtitle = f"$d = {depth}$ {levels}, $T = {steps}$ time steps"
        axes.text(width / 2, height - 0.35, title, ha="center", va="center", fontsize=16, weight="bold")
        axes.text(width / 2, height - 0.9, subtitle, ha="center", va="center", fontsize=11.5, color=SLATE)
        axes.text(width / 2, 0.42, f"longest path: ${count}$", ha="center", va="center", fontsize=14, color=colour)
    left.plot([width, width], [0.3, height - 0.3], color=FAINT, linewidth=1, clip_on=False)
    return figure


def rhn_layer() -> Figure:
    """One time step of one layer: the carry, the gates of two micro-steps, and where each mask acts."""
    width, height = 15.6, 10.6
    figure = Figure(figsize=(7.4, 7.4 * height / width))
    figure.patch.set_facecolor(BACKGROUND)
    axes = canvas(figure, (0, 0, 1, 1), width, height)
    road, gate_row = 8.1, 4.5  # heights of the carry and of the gates

    def mask(centre: Point, letter: str) -> None:
        disc(axes, centre, 0.42, letter, MASK_COLOURS[letter], MASK_COLOURS[letter], 14)

    def micro_step(left: float, title: str) -> tuple[Point, Point]:
        """Draw one; returns the bottoms of its gates t and h."""
        panel = FancyBboxPatch(
            (left, 2.75), 4.75, 6.75, boxstyle="round,pad=0,rounding_size=0.3", facecolor=PANEL, edgecolor="none"
        )
        axes.add_patch(panel)
        axes.text(left + 2.4, 9.05, title, ha="center", va="center", weight="bold")
        branch, t_column, h_column, bus = left + 0.7, left + 2.25, left + 3.9, 3.15

        dot(axes, (branch, road), CARRY)
        line(axes, (branch, road), (branch, 6.1), colour=CARRY)
        line(axes, (branch, 6.1), (branch, bus), (h_column - 0.25, bus), colour=MASK_COLOURS["S"])
        for column in (t_column, h_column):
            arrow(axes, (column - 0.25, bus), (column - 0.25, gate_row - 0.5), MASK_COLOURS["S"])
        mask((branch, 6.1), "S")

        box(axes, (t_column, gate_row), (1.25, 0.95), r"$\sigma$")
        box(axes, (h_column, gate_row), (1.25, 0.95), "tanh")
        arrow(axes, (t_column, gate_row + 0.5), (t_column, road - 0.36))
        arrow(axes, (h_column, gate_row + 0.5), (h_column, 6.1 - 0.36))
        dot(axes, (t_column, 6.1))
        arrow(axes, (t_column, 6.1), (h_column - 0.36, 6.1))
        arrow(axes, (h_column, 6.1 + 0.34), (h_column, road - 0.36))
        axes.text(t_column - 0.16, 5.4, r"$t$", ha="right", va="center")
        axes.text(h_column + 0.16, 5.35, r"$h$", ha="left", va="center")
        axes.text(t_column - 0.16, 7.15, r"$1-t$", ha="right", va="center", fontsize=12)
        operation(axes, (t_column, road), "x", CARRY)
        operation(axes, (h_column, 6.1), "x")
        operation(axes, (h_column, road), "+", CARRY)
        return (t_column, gate_row - 0.5), (h_column, gate_row - 0.5)

    # The carry.
    first, second, end = 1.3, 6.85, 13.6
    t_bottom, h_bottom = micro_step(first, "micro-step 1")
    micro_step(second, "micro-step 2")
    arrow(axes, (0.35, road), (width - 0.25, road), CARRY, 5)
    for x in (12.15, 12.5, 12.85):
        axes.add_patch(Circle((x, road - 0.7), 0.09, color=SLATE))
    axes.text(12.5, road - 1.2, "up to L", ha="center", va="center", fontsize=11, color=SLATE)
    axes.text(0.1, road + 0.62, r"$s_{t-1}$", ha="left", va="center", fontsize=15, color=CARRY)
    axes.text(width - 0.1, road + 0.62, r"$s_t$", ha="right", va="center", fontsize=15, color=CARRY)
    axes.text(
        width / 2, 10.15, "the carry is never masked", ha="center", va="center", color=CARRY, weight="bold", fontsize=14
    )

    # From the word to the first micro-step.
    row, corner = 1.2, 6.3
    axes.text(0.1, row, "word", va="center_baseline")
    arrow(axes, (1.3, row), (1.85, row))
    box(axes, (2.75, row), (1.8, 0.95), "embed")
    line(axes, (3.65, row), (4.5, row))
    line(axes, (4.5, row), (5.6, row), colour=MASK_COLOURS["E"])
    line(axes, (5.6, row), (corner, row), (corner, 2.3), (t_bottom[0] + 0.25, 2.3), colour=MASK_COLOURS["I"])
    mask((4.5, row), "E")
    mask((5.6, row), "I")
    for x, y in (t_bottom, h_bottom):
        arrow(axes, (x + 0.25, 2.3), (x + 0.25, y), MASK_COLOURS["I"])

    # From the last micro-step to the prediction.
    dot(axes, (end, road), CARRY)
    line(axes, (end, road), (end, 6.1), colour=CARRY)
    arrow(axes, (end, 6.1), (end, gate_row + 0.5), MASK_COLOURS["O"])
    mask((end, 6.1), "O")
    box(axes, (end, gate_row), (2.2, 0.95), "softmax")
    arrow(axes, (end, gate_row - 0.5), (end, 3.3))
    axes.text(end, 2.95, "next word", ha="center", va="center")

    # What the masks are.
    for i, (letter, meaning) in enumerate(
        (
            ("E", "whole words of a window"),
            ("I", "units of the input"),
            ("S", "units of the state"),
            ("O", "units of the output"),
        )
    ):
        y = 2.3 - 0.48 * i
        disc(axes, (7.6, y), 0.2, letter, MASK_COLOURS[letter], MASK_COLOURS[letter], 8.5)
        axes.text(8.05, y, f"drops {meaning}", va="center_baseline", fontsize=12)
    axes.text(7.4, 0.34, "drawn once per window, then constant", va="center_baseline", fontsize=12, color=SLATE)
    return figure


def depth_experiment() -> Figure:
    """Perplexity against recurrence depth: measured by benchmarks/depth_experiment.py, and published."""
    record = json.loads(DEPTH_EXPERIMENT.read_text())
    measured = [(row["recurrence_depth"], row["test_perplexity"]) for row in record["rows"]]  # one point per seed
    # The paper's untied models are those of equal size.
    published = [
        (row.depth, row.test) for row in PAPER_ROWS if row.source == PAPER and row.dataset == "ptb" and not row.tied
    ]

    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    figure.patch.set_facecolor(BACKGROUND)
    for axes, points, colour, title, subtitle in zip(
        figure.subplots(1, 2),
        (measured, published),
        (ORANGE, BLUE),
        ("This experiment", "The paper"),
        (f"1 M parameters, {record['options']['epochs']} epochs", "32 M parameters, up to 500 epochs"),
        strict=True,
    ):
        depths = sorted({depth for depth, _ in points})
        means = [mean(value for other, value in points if other == depth) for depth in depths]
        axes.plot(depths, means, marker="o", markersize=8, linewidth=2.6, color=colour, clip_on=False, zorder=3)
        if len(points) > len(depths):
            axes.plot(*zip(*points, strict=True), "_", markersize=11, color=INK, clip_on=False, zorder=4)
        for depth, value, following in zip(depths, means, [*means[1:], means[-1]], strict=True):
            if len(depths) < 6 or depth in (depths[0], depths[-1]):
                place = {
                    "xy": (depth, value),
                    "xytext": (7, -16 if following > value else 8),  # where the line does not go
                    "textcoords": "offset points",
                }
                axes.annotate(f"{value:.1f}", color=colour, weight="bold", fontsize=12, **place)
        axes.set_title(f"{title}\n", fontsize=15, weight="bold")
        axes.text(0.5, 1.04, subtitle, ha="center", transform=axes.transAxes, fontsize=11.5, color=SLATE)
        axes.set_xlabel("recurrence depth")
        axes.set_xticks(depths)
        axes.tick_params(labelsize=11.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=FAINT, linewidth=0.8)
        values = [value for _, value in points]
        margin = 0.15 * (max(values) - min(values))
        axes.set_ylim(min(values) - margin, max(values) + margin)
        span = max(depths) - min(depths)
        axes.set_xlim(min(depths) - 0.08 * span, max(depths) + 0.16 * span)  # on the right: room for a number
    figure.axes[0].set_ylabel("test perplexity")
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "stacked_and_deep_transition": stacked_and_deep_transition,
    "rhn_layer": rhn_layer,
    "depth_experiment": depth_experiment,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; default: all")
    wanted = parser.parse_args().figures or list(FIGURES)
    FOLDER.mkdir(exist_ok=True)
    with matplotlib.rc_context(STYLE):
        for name in wanted:
            # No date and no version in the file: it changes only if the picture does.
            FIGURES[name]().savefig(FOLDER / f"{name}.svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
