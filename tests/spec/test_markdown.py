"""Any text stays in its cell, and is shown as it is."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rhn.markdown import escaped, table
from rhn.text import one_line


@given(st.text())
def test_no_text_breaks_a_row_or_is_markup(text: str) -> None:
    lines = table(["a", "b"], [[text, text]]).split("\n")
    assert len(lines) == 3
    assert len(" ".join(lines).splitlines()) == 1
    assert lines[2].count("|") == 3
    assert "<" not in lines[2]
    assert lines[2].isprintable()


@given(st.text())
def test_the_text_comes_back(text: str) -> None:
    shown = html.unescape(re.sub(r"\\([\\`*~(:_])", r"\1", escaped(text)))
    assert shown == one_line(" ".join(text.split()))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("drop_state 0.25", "drop_state 0.25"),
        ("logits[1] is nan", "logits[1] is nan"),
        ("_both_ *ways*", r"\_both\_ \*ways\*"),
        (r"a\|b", r"a\\&#124;b"),
        ("[x](y) [x]: z", r"[x]\(y) [x]\: z"),
        ("<b> & c", "&lt;b&gt; &amp; c"),
    ],
)
def test_only_what_would_be_markup_is_escaped(text: str, written: str) -> None:
    assert escaped(text) == written
