"""Reads the words of the command line before Sacred sees them: names, values, config files, flags in any place.

Values are checked here against the table of options, so that a mistake ends in a one-sentence message. Config files are
read here as plain data: with Sacred, a JSON file could run code.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rhn.training.options import ALIASES, OPTIONS, OptionError, check_value
from rhn.training.options.row import COMMANDS

CONFIG_FILES = (".json", ".yaml", ".yml")
Take = Callable[[dict[str, Any], str, Any], None]  # puts an option, by name, among values

OTHER_COMMANDS = ("print_config", "print_named_configs", "print_dependencies", "save_config", "help")


@dataclass(frozen=True)
class Words:
    """What a command line asks for.

    Attributes:
        command: name of the command; None: train.
        flags: Sacred's flags, with their arguments.
        recipes: names of recipes, in order.
        values: values of options, by the names of this project; those from config files are included.
    """

    command: str | None = None
    flags: list[str] = field(default_factory=list)
    recipes: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)

    def for_sacred(self) -> list[str]:
        """The same as words that Sacred cannot misread: every value is a Python literal."""
        updates = [*self.recipes, *(f"{name}={value!r}" for name, value in self.values.items())]
        command = [] if self.command is None else [self.command]
        return [*self.flags, *command, *(["with", *updates] if updates else [])]


def take_option(values: dict[str, Any], name: str, value: Any) -> None:
    """Set the option `name` or its authors' name in `values`; OptionError unless it exists and accepts `value`."""
    name = ALIASES.get(name, name)
    if name not in OPTIONS:
        raise OptionError(f"option {name!r} is not known{nearest(name, [*OPTIONS, *ALIASES])}")
    check_value(OPTIONS[name], value)
    values[name] = value


def read_words(
    arguments: Sequence[str],
    recipes: Collection[str],
    flags_with_argument: Collection[str] = (),
    take: Take = take_option,
) -> Words:
    """Read the words after the program's name.

    Args:
        arguments: `[FLAG ...] [COMMAND] [with [RECIPE ...] [CONFIG FILE ...] [OPTION=VALUE ...] [FLAG ...]]`.
        recipes: names of all recipes.
        flags_with_argument: Sacred's flags that take an argument.
        take: checks the name and value of an option and adds it to the values.

    Raises:
        OptionError: a word is not understood, or a value is not accepted; the message suggests the nearest name.
    """
    words = Words()
    command = None
    after_with = False
    remaining = list(arguments)
    while remaining:
        word = remaining.pop(0)
        if word.startswith("-"):
            words.flags.append(word)
            if word in flags_with_argument and remaining:
                words.flags.append(remaining.pop(0))
        elif word == "with":
            after_with = True
        elif after_with:
            _read_update(word, words, recipes, take)
        elif command is None:
            command = _command(word, recipes)
        elif command == "help":
            return Words(command="help", values={"about": word})
        else:
            hint = f"did you mean `with {word}`?" if _is_update(word, recipes) else "options come after the word `with`"
            raise OptionError(f"word {word!r} is not understood: {hint}")
    return Words(command, words.flags, words.recipes, words.values)


def _command(word: str, recipes: Collection[str]) -> str:
    known = [*COMMANDS, *OTHER_COMMANDS]
    if word in known:
        return word
    if _is_update(word, recipes):
        raise OptionError(f"command {word!r} is not known: did you mean `with {word}`?")
    raise OptionError(f"command {word!r} is not known{nearest(word, known)}")


def _is_update(word: str, recipes: Collection[str]) -> bool:
    """Whether `word` belongs after `with`."""
    return word in recipes or "=" in word or word.endswith(CONFIG_FILES)


def _read_update(word: str, words: Words, recipes: Collection[str], take: Take) -> None:
    """Add one word after `with` to `words`."""
    name, equals, value = word.partition("=")
    if equals:
        take(words.values, name.strip(), literal(value.strip()))
    elif word.endswith((*CONFIG_FILES, ".pickle", ".pkl")):
        for name, value in _read_config_file(Path(word)).items():
            take(words.values, name, value)
    elif word in recipes:
        words.recipes.append(word)
    else:
        raise OptionError(f"recipe {word!r} is not known{nearest(word, recipes, [*OPTIONS, *ALIASES])}")


def as_words(values: Mapping[str, Any]) -> list[str]:
    """`NAME=VALUE` for each of `values`: words that `read_words` understands after `with`."""

    def written(value: Any) -> str:
        return value if isinstance(value, str) and literal(value.strip()) == value else repr(value)

    return [f"{name}={written(value)}" for name, value in values.items()]


def literal(text: str) -> Any:
    """The value of a Python literal, or the text itself if it is not a literal."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def _read_config_file(file: Path) -> Mapping[str, Any]:
    """Options from a JSON or YAML file, as plain data."""
    if file.suffix not in CONFIG_FILES:
        raise OptionError(f"config file {file} is not accepted: expected a file that ends in {', '.join(CONFIG_FILES)}")
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".json":
            content = json.loads(text)
        else:
            import yaml  # comes with Sacred

            try:
                content = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(str(error).replace("\n", " ")) from error
    except OSError as error:
        raise OptionError(f"config file {file} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise OptionError(f"config file {file} is damaged ({error})") from error
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise OptionError(f"config file {file} is not accepted: expected names and values of options")
    return content


def nearest(name: str, candidates: Collection[str], others: Collection[str] = ()) -> str:
    """The end of a message about an unknown name: the nearest of `candidates`, or `NAME=...` if it is one of `others`,
    or all candidates."""
    close = get_close_matches(name, candidates, n=1, cutoff=0.6)
    if name in others:
        return f": did you mean `{name}=...`?"
    if close:
        return f": did you mean {close[0]!r}?"
    return f"; known names: {', '.join(sorted(candidates))}"
