import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import GENERATED, generating_case
from hypothesis import given
from hypothesis import strategies as st

import rhn
from rhn.training.evaluate.generate import decoded_pieces, default_prompt, generate, generate_text
from rhn.training.options import DEFAULTS, OptionError
from rhn_datasets import Vocabulary

BYTES = Vocabulary(tuple(chr(b) for b in range(256)), "byte")
WORDS = Vocabulary(("<eos>", "<unk>", "the", "cat"), "word")
CHARACTERS = Vocabulary(("a", "ß", "\n"), "char")


@given(st.lists(st.integers(0, 255)))
def test_bytes_come_as_whole_characters(tokens: list[int]) -> None:
    assert "".join(decoded_pieces(BYTES, tokens)) == BYTES.decode(tokens)


def test_a_character_comes_with_its_last_byte() -> None:
    assert list(decoded_pieces(BYTES, "a€".encode())) == ["a", "", "", "€", ""]


@given(st.lists(st.integers(0, 3)))
def test_words_are_joined_by_spaces_within_a_line(tokens: list[int]) -> None:
    assert "".join(decoded_pieces(WORDS, tokens)) == WORDS.decode(tokens)


@given(st.lists(st.integers(0, 2)))
def test_characters_are_what_they_are(tokens: list[int]) -> None:
    assert "".join(decoded_pieces(CHARACTERS, tokens)) == CHARACTERS.decode(tokens)


def test_a_text_begins_after_a_line_end_where_there_is_one() -> None:
    assert default_prompt(WORDS) == default_prompt(BYTES) == default_prompt(CHARACTERS) == "\n"
    assert default_prompt(Vocabulary(("x", " "), "char")) == " "
    assert default_prompt(Vocabulary(("x", "y"), "word")) == "x"
    for vocabulary in (WORDS, BYTES, CHARACTERS):
        assert len(vocabulary.encode(default_prompt(vocabulary))) == 1


def test_the_command_prints_prompt_and_text(call: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for seed in (1, 1, 2):
        call(generate_text, prompt="the q", length=30, seed=seed)
        texts.append(capsys.readouterr().out.split("\n", 1)[1])
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("the q")
    assert len(texts[0]) == 5 + 30 + 1  # with the line end of the command


def test_it_needs_no_data(call: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    call(generate_text, data_path="nowhere.txt", length=3, top_k=1, temperature=0.5)
    assert capsys.readouterr().out


def test_every_token_is_flushed(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def __init__(self) -> None:
            super().__init__()
            self.shown: list[str] = []

        def flush(self) -> None:
            self.shown.append(self.getvalue())

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    call(generate_text, prompt="t", length=8)
    lengths = np.diff([len(text) for text in terminal.shown[1:-1]])
    assert len(terminal.shown) == 1 + 9 + 1  # what was opened; the prompt and 8 tokens; the line end
    assert (lengths == 1).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [("prompt", 1984), ("prompt", ""), ("length", 0), ("temperature", 0.0), ("top_k", 0), ("seed", -1)],
)
def test_impossible_options_are_named_before_anything_is_loaded(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"{name}={value!r} is not accepted: expected"):
        generate_text("reference", {**DEFAULTS, "checkpoint": "nowhere", name: value}, {})


def test_a_prompt_outside_of_the_vocabulary_is_named(call: Callable[..., Any]) -> None:
    with pytest.raises(OptionError, match="prompt='École' is not accepted: 'É' is not among the"):
        call(generate_text, prompt="École")


def test_the_numbers_that_the_ports_must_draw() -> None:
    config, parameters = generating_case()
    model = rhn.load_backend("reference").build(config, parameters, "float64")
    assert list(generate(model, np.array([1, 2]), 10, seed=4, top_k=5)) == GENERATED
