import re
from itertools import pairwise
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from rhn.training.report import render as render_module
from rhn.training.report.charts import COLOURS, Line, line_chart, line_key, line_style
from rhn.training.report.render import render

CSS = (Path(render_module.__file__).parent / "pages" / "page.css").read_text()
LIGHT, DARK = (dict(re.findall(r"--([\w-]+): (#\w+);", block)) for block in re.findall(r":root \{(.*?)\}", CSS, re.S))


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("background", ["paper", "raised"])
@pytest.mark.parametrize("name", ["ink", "quiet", "warning", *(f"line-{i}" for i in range(COLOURS))])
def test_text_and_lines_stand_out(theme: dict[str, str], background: str, name: str) -> None:
    assert contrast(theme[name], theme[background]) >= 4.5  # WCAG 2.2 AA asks this of text, and 3 of lines


def test_lines_of_many_runs_can_be_told_apart() -> None:
    styles = [line_style(i) for i in range(18)]
    assert len(set(styles)) == 18
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in pairwise(styles))


def test_text_is_never_markup() -> None:
    text = '<b> & "c"'
    group = {
        "dataset": text,
        "key": line_key([text]),
        "charts": [line_chart(text, [Line(text, (1, 2), (3.0, 4.0), 0)])],
    }
    html = render("comparison.html.j2", number=1, header=[text], rows=[[text]], notes=[text], groups=[group]).decode()
    assert "<b>" not in html
    assert html.count("&lt;b&gt; &amp; ") == 8  # header, cell, note, heading, key, caption, and twice in words


def test_a_name_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("comparison.html.j2", number=1)
