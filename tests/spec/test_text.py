import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rhn.text import one_line, printable

# Letters that mean something to a terminal, to HTML or to Markdown come often.
TEXTS = st.text(
    st.one_of(st.sampled_from("|\\`*_[]<>&~#$-!\n\r\t\x1b\x07\u2028\u202e a"), st.characters()), max_size=12
)


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
