import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rhn.text import markdown_table, markdown_text, one_line, printable

# Letters that mean something to a terminal, to HTML or to Markdown come often.
TEXTS = st.text(
    st.one_of(st.sampled_from("|\\`*_[]<>&~#$-!\n\r\t\x1b\x07\u2028\u202e a"), st.characters()), max_size=12
)


def cells_of(line: str) -> list[str]:
    """The cells of a table row as GitHub reads them: a sign behind a backslash neither ends a cell nor is markup."""
    assert line.startswith("| ")
    assert line.endswith(" |")
    pieces = re.findall(r"(?:\\[!-/:-@\[-`{-~]|[^|])+", line[1:-1])
    return [html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", piece[1:-1])) for piece in pieces]


@given(TEXTS)
def test_printed_text_is_one_line_without_control(text: str) -> None:
    assert one_line(text).isprintable()


@pytest.mark.parametrize("text", ["ptb_sota depth 5 ± 0.1", "größer 中文", r"a\b"])
def test_printable_text_stays_as_it_is(text: str) -> None:
    assert one_line(text) == text


@given(TEXTS)
def test_a_terminal_obeys_nothing_in_printed_text(text: str) -> None:
    assert re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", printable(text)) is None
    assert one_line(printable(text)) == one_line(text)


def test_printed_text_keeps_its_lines() -> None:
    assert printable("a\tb\nc\x1b[2J\r中") == "a\tb\nc\\x1b[2J\\r中"


def test_what_a_terminal_would_obey_is_spelt_out() -> None:
    assert one_line("\x1b[31mred\x1b]0;title\x07\nnext \udcff") == r"\x1b[31mred\x1b]0;title\x07\nnext \udcff"


@given(st.lists(st.lists(TEXTS, min_size=3, max_size=3), max_size=3))
def test_every_cell_of_a_table_is_read_back(rows: list[list[str]]) -> None:
    header = ["run", "a|b", "c"]
    lines = markdown_table(header, rows).split("\n")
    assert lines.pop() == ""
    assert lines.pop(1) == "| --- | --- | --- |"
    assert [cells_of(line) for line in lines] == [[one_line(cell) for cell in row] for row in (header, *rows)]


@given(TEXTS)
def test_nothing_in_a_cell_is_markup(text: str) -> None:
    unescaped = re.sub(r"\\[\\`*\[\]~|_]", "", markdown_text(text))
    assert re.search(r"[\\`*\[\]~|<>]", unescaped) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("my_run", "my_run"),
        ("_a__b_", r"\_a\_\_b\_"),
        ("a|b", r"a\|b"),
        ("a\\|b", r"a\\\|b"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("two\nlines", r"two\\nlines"),
    ],
)
def test_markdown_shows_letter_by_letter(text: str, shown: str) -> None:
    assert markdown_text(text) == shown
