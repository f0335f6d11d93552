"""The words of the command line: names, values, config files, and what is said of a mistake."""

import json
from pathlib import Path
from typing import Any

import pytest

from rhn.training.options import ALIASES, DEFAULTS, OptionError
from rhn.training.recipes import RECIPES
from rhn.training.terminal.read_words import Words, as_words, read_words

VALUES = {"share_gate_masks": "False", "tie_weights": "False", "checkpoint": "a.safetensors", "other_bias": "uniform"}


def read(line: str) -> Words:
    return read_words(line.split(), RECIPES, ("-F", "-l"))


@pytest.mark.parametrize(("theirs", "ours"), ALIASES.items())
def test_the_authors_option_names_work(theirs: str, ours: str) -> None:
    value = VALUES.get(ours, str(DEFAULTS[ours]))
    words = read(f"train with ptb_sota {theirs}={value}")
    assert words.command == "train"
    assert words.recipes == ["ptb_sota"]
    assert list(words.values) == [ours]


def test_a_value_may_hold_an_equals_sign() -> None:
    assert read("with checkpoint=a=b").values == {"checkpoint": "a=b"}


def test_values_are_python_literals_or_text() -> None:
    words = read("with learning_rate=1e-3 patience=None tie_weights=False run='2024' data_path=my.txt")
    assert words.values == {
        "learning_rate": 1e-3,
        "patience": None,
        "tie_weights": False,
        "run": "2024",
        "data_path": "my.txt",
    }
    assert "run='2024'" in words.for_sacred()


def test_flags_stand_before_or_after_with() -> None:
    assert read("-F records train with demo").flags == ["-F", "records"]
    words = read("with demo -F records -l INFO epochs=1")
    assert words.flags == ["-F", "records", "-l", "INFO"]
    assert words.recipes == ["demo"]
    assert words.values == {"epochs": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("with learning_rat=1", "option 'learning_rat' is not known: did you mean 'learning_rate'?"),
        ("with ptb_sotta", "recipe 'ptb_sotta' is not known: did you mean 'ptb_sota'?"),
        ("with depth", "recipe 'depth' is not known: did you mean `depth=...`?"),
        ("demo", "command 'demo' is not known: did you mean `with demo`?"),
        ("train demo", "word 'demo' is not understood: did you mean `with demo`?"),
        ("epochs=3", "command 'epochs=3' is not known: did you mean `with epochs=3`?"),
        ("evaluat", "command 'evaluat' is not known: did you mean 'evaluate'?"),
        ("with seed=abc", "seed='abc' is not accepted: expected an integer from 0 to 2**64 - 1"),
        ("with prompt={'py/reduce':1}", "prompt={'py/reduce': 1} is not accepted: expected text"),
        ("with a.pickle", "config file a.pickle is not accepted: expected a file that ends in .json, .yaml, .yml"),
        ("with nowhere.json", "config file nowhere.json cannot be read (No such file or directory)"),
    ],
)
def test_a_mistake_gets_one_sentence(line: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        read(line)
    assert str(caught.value).startswith(message)


def test_config_files_are_plain_data(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"depth": 3, "dataset": "text"}))
    (tmp_path / "b.yaml").write_text("learning_rate: 0.01\ntie_weights: false\n")
    words = read(f"with {tmp_path}/a.json {tmp_path}/b.yaml epochs=2")
    assert words.values == {
        "recurrence_depth": 3,
        "dataset": "text",
        "learning_rate": 0.01,
        "tie_weights": False,
        "epochs": 2,
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '{"prompt": {"py/reduce": [{"py/function": "os.system"}, {"py/tuple": ["touch PWNED"]}]}}'),
        ("a.json", "[1, 2]"),
        ("a.json", "{"),
        ("a.json", "[" * 100_000),
        ("a.json", '{"epochz": 1}'),
        ("a.yaml", "!!python/object/apply:os.system [touch PWNED]"),
        ("a.yaml", "a: [1"),
        ("a.yaml", "1: 2"),
    ],
)
def test_a_config_file_cannot_run_code_and_gets_a_sentence(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(OptionError):
        read(f"with {tmp_path / name}")
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": 1e-3, "patience": None, "tie_weights": False, "hidden_size": 7},
        {"run": "2024", "prompt": 'it\'s "so" & $HOME\n', "data_path": ["a b", "c", "d"], "checkpoint": "None"},
        {"level": "char", "data_path": "my.txt", "folder": "a=b"},
    ],
)
def test_values_become_words_that_say_the_same(values: dict[str, Any]) -> None:
    assert read_words(["with", *as_words(values)], RECIPES).values == values
