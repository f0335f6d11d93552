"""The texts of `help` and `print_config`: the commands, the options of each command, the recipes, the configuration."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from rhn.training.options import OPTIONS, OptionError, options_of
from rhn.training.options.row import COMMANDS, Option
from rhn.training.recipes import RECIPES
from rhn.training.recipes.published_scores import paper_result, published_for
from rhn.training.recipes.tuned import TUNED

_WIDTH = 110

GROUPS = {
    "data": "Data",
    "model": "Model",
    "training": "Training",
    "dropout": "Dropout",
    "arithmetic": "Arithmetic and seed",
    "run": "Run",
    **{command: f"Only {command}" for command in COMMANDS},
}


def overview(program: str) -> str:
    """The page of `help`: usage, commands, recipes."""
    commands = [_entry(name, meaning, 18) for name, meaning in COMMANDS.items()]
    others = [
        _entry("print_config", "Print the value of every option, and do nothing else.", 18),
        _entry("help COMMAND", "List the options of a command.", 18),
    ]
    return "\n".join(
        [
            f"{program} [COMMAND] [with [RECIPE] [FILE.json] [OPTION=VALUE ...]]",
            "",
            "Commands (the default is train):",
            *commands,
            *others,
            "",
            "Recipes:",
            recipes(),
            "",
            "Examples:",
            f"  {program} with demo",
            f"  {program} with ptb_sota depth=5 epochs=20 run=shallow",
            f"  {program} with resume=runs/shallow",
            f"  {program} evaluate with checkpoint=runs/shallow/best.safetensors",
            "",
            "Sacred's flags work before and after `with`: -F FOLDER keeps its record of a run, -l LEVEL shows its log.",
        ]
    )


def help_on(about: str, program: str) -> str:
    """The page of `help COMMAND`, `help RECIPE` or `help OPTION`.

    Raises:
        OptionError: nothing has this name.
    """
    if about in COMMANDS:
        return _help_on_command(about, program)
    if about in RECIPES:
        values = [f"  {name} = {value!r}" for name, value in RECIPES[about].items()]
        return "\n".join([f"{about}: {describe_recipe(about)}", "", *values])
    if about in OPTIONS:
        return "\n".join(option_lines(OPTIONS[about]))
    close = get_close_matches(about, [*COMMANDS, *RECIPES, *OPTIONS], n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of the commands {', '.join(COMMANDS)}"
    raise OptionError(f"help {about!r} is not known: {hint}")


def _help_on_command(command: str, program: str) -> str:
    lines = [f"{program} {command} [with [RECIPE] [OPTION=VALUE ...]]", "", COMMANDS[command], ""]
    for group, title in GROUPS.items():
        members = [option for option in options_of(command) if option.group == group]
        if members:
            lines += [f"{title}:", *(line for option in members for line in option_lines(option)), ""]
    return "\n".join(lines).rstrip()


def option_lines(option: Option) -> list[str]:
    """The option with its default, and indented its meaning and accepted values."""
    also = f" Authors' name: {', '.join(option.aliases)}." if option.aliases else ""
    meaning = f"{_sentence(option.meaning)} Expected: {option.accepted.expected}.{also}"
    return [f"  {option.name} = {option.default!r}", *textwrap.wrap(meaning, _WIDTH - 6, **_INDENT)]


_INDENT: dict[str, Any] = {"initial_indent": " " * 6, "subsequent_indent": " " * 6}


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def recipes() -> str:
    """All recipes, one line each: the page of `print_named_configs`."""
    return "\n".join(_entry(name, describe_recipe(name), 20) for name in RECIPES)


def describe_recipe(name: str) -> str:
    """One line on a recipe: what it trains, and the published score."""
    recipe = RECIPES[name]
    if name == "demo":
        return "two minutes on two cores, without a download: the language reference that comes with Python"
    units, depth = recipe["hidden_size"], recipe["recurrence_depth"]
    if name in TUNED:
        return f"{recipe['dataset']}, depth {depth}, {units} units{_published(name)}"
    row = paper_result({**{option.name: option.default for option in OPTIONS.values()}, **recipe})
    result = (
        ""
        if row is None
        else f"; in the paper: {row.printed('test')} {row.unit}, {row.parameters / 1e6:.1f} M parameters"
    )
    return f"{recipe['dataset']}, depth {depth}, {units} units{result}"


def _published(recipe: str) -> str:
    """The score that others have published for this recipe, or for a similar model."""
    row = published_for(recipe)
    if row is None:
        return ""
    remark = f", {row.remark}" if row.remark else ""
    return f"; {row.source}{remark}: {row.printed('test')} {row.unit}"


def configuration(values: Mapping[str, Any], changed: Collection[str]) -> str:
    """The page of `print_config`: every option with value and meaning; a star marks a changed value."""
    lines = ["Configuration (* differs from the default):"]
    for group, title in GROUPS.items():
        members = [option for option in OPTIONS.values() if option.group == group]
        if members:
            lines += ["", f"{title}:"]
            lines += [_setting(option, values[option.name], option.name in changed) for option in members]
    return "\n".join(lines)


def _setting(option: Option, value: Any, is_changed: bool) -> str:
    setting = f"{'*' if is_changed else ' '} {option.name} = {value!r}"
    return f"{setting:38} # {option.meaning}"


def _entry(name: str, meaning: str, width: int) -> str:
    return f"  {name:{width}} {meaning}"
