"""Reads the command line of a search: the space, the options that all trials share, and the options of the search.

python -m rhn_torch.search with [SPACE] [RECIPE ...] [CONFIG FILE ...] [OPTION=VALUE ...] [OPTION=DISTRIBUTION ...]
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rhn.training.options import ALIASES, DEFAULTS, OPTIONS, OptionError, check_value, pick
from rhn.training.options.accepted import either, folder_name, integer, one_of, path
from rhn.training.options.plan import data_in_full
from rhn.training.options.row import Option, option
from rhn.training.recipes import RECIPES
from rhn.training.search.named_spaces import SPACES
from rhn.training.search.space import Dimension, Space, is_form, may_be_searched, read_dimension
from rhn.training.terminal.read_words import as_words, nearest, read_words
from rhn_datasets import CORPORA

SAMPLERS = ("random", "tpe")
PRUNERS = ("median",)
_SET_BY_SEARCH = ("run", "runs_path", "resume")
# Options that do not change what a trial trains. They may differ when a search is continued.
WITHOUT_EFFECT = ("data_path", "device", "recompute", "checkpoint_minutes", "preflight", "progress", "tensorboard")


def _search(default: Any, *row: Any) -> Any:
    return option("search", default, *row, commands=("search",))


@dataclass(frozen=True)
class SearchOptions:
    """The options of a search itself."""

    trials: int = _search(20, integer(1, 10**5), "number of trials in all")
    search: str | None = _search(
        None, either(folder_name(), None), "name of the folder of the search; None: made from backend and data"
    )
    searches_path: str = _search("searches", path(), "where the folders of searches are made")
    search_seed: int = _search(
        1, integer(0, 2**64 - 1), "seed of the random draws; the option seed belongs to the training runs"
    )
    sampler: str = _search("random", one_of(*SAMPLERS), "how the options of a trial are chosen; tpe needs Optuna")
    pruner: str | None = _search(
        None, one_of(None, *PRUNERS), "ends a trial early that is worse than the median of the others; needs Optuna"
    )


SEARCH_OPTIONS: dict[str, Option] = {
    field.name: Option(name=field.name, default=field.default, **field.metadata)
    for field in dataclasses.fields(SearchOptions)
}


@dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
        backend: name of the backend that trains.
        recipes: names of the recipes of all trials, in order.
        fixed: options with a single value, by name, apart from the options of the recipes.
        space: the options that are searched.
        how: the options of the search.
    """

    backend: str
    recipes: tuple[str, ...]
    fixed: dict[str, Any]
    space: Space
    how: SearchOptions

    @property
    def folder(self) -> Path:
        """The folder of the search."""
        return Path(self.how.searches_path) / (self.how.search or f"{self.backend}-{self.common['dataset']}")

    @property
    def common(self) -> dict[str, Any]:
        """All options, before a draw replaces the searched ones."""
        recipes = {name: value for recipe in self.recipes for name, value in RECIPES[recipe].items()}
        return {**DEFAULTS, **recipes, **self.fixed}

    @property
    def level(self) -> str:
        """What a token is: "word", "char" or "byte"."""
        return self.common["level"] or CORPORA[self.common["dataset"]].levels[0]

    def options(self, draw: Mapping[str, Any]) -> dict[str, Any]:
        """All options of a trial with this draw."""
        return {**self.common, **self.space.options(draw)}

    def command(self, draw: Mapping[str, Any]) -> str:
        """The command that trains the model of a trial with this draw."""
        words = as_words({**self.fixed, **self.space.options(draw)})
        return shlex.join(["python", "-m", f"rhn_{self.backend}.train", "with", *self.recipes, *words])

    def identity(self) -> dict[str, Any]:
        """What makes two commands the same search, as JSON: the options that matter, by name."""
        searched = [name for d in self.space.dimensions for name in d.names]
        same = {
            name: value
            for name, value in self.common.items()
            if value != DEFAULTS[name] and name not in (*searched, *WITHOUT_EFFECT)
        }
        how = {name: getattr(self.how, name) for name in ("search_seed", "sampler", "pruner")}
        return {**same, **{d.key: str(d) for d in self.space.dimensions}, **how}


def read_request(backend: str, arguments: Sequence[str]) -> Request:
    """Read the words after the program's name.

    Raises:
        OptionError: a word is not understood, a value is not accepted, or there is nothing to search.
    """
    words = read_words(arguments, [*RECIPES, *SPACES], take=_take)
    if words.command is not None or words.flags:
        word = words.command or words.flags[0]
        raise OptionError(f"word {word!r} is not understood: expected `with` and options, or `help`")
    values, named = words.values, [name for name in words.recipes if name in SPACES]
    given = [name for key, value in values.items() for name in (value.names if _is_dimension(value) else (key,))]
    twice = [name for name in given if given.count(name) > 1]
    if twice:
        raise OptionError(f"option {twice[0]!r} is given twice: expected one value or one distribution")
    dimensions = {d.key: d for space in named for d in _dimensions_of(space) if not set(d.names) & set(given)}
    dimensions |= {value.key: value for value in values.values() if _is_dimension(value)}
    if not dimensions:
        raise OptionError(
            "there is nothing to search: expected OPTION=DISTRIBUTION, such as 'learning_rate=log(1e-3, 5e-3)', or one"
            f" of the spaces {', '.join(SPACES)}"
        )
    fixed = {name: value for name, value in values.items() if name in OPTIONS and not _is_dimension(value)}
    return Request(
        backend=backend,
        recipes=tuple(SPACES[name][0] if name in SPACES else name for name in words.recipes),
        fixed=data_in_full(fixed),
        space=Space(tuple(dimensions.values())),
        how=pick(SearchOptions, {name: values.get(name, row.default) for name, row in SEARCH_OPTIONS.items()}),
    )


def _dimensions_of(space: str) -> list[Dimension]:
    return [read_dimension(key, text) for key, text in SPACES[space][1].items()]


def _is_dimension(value: Any) -> bool:
    return isinstance(value, Dimension)


def _take(values: dict[str, Any], name: str, value: Any) -> None:
    """Add an option of training or of the search, or a dimension of the space, to `values`; see `read_words`."""
    name = ALIASES.get(name, name)
    if "," in name or (name in OPTIONS and may_be_searched(name) and is_form(value)):
        dimension = read_dimension(name, value)
        values[dimension.key] = dimension
        return
    table = {**OPTIONS, **SEARCH_OPTIONS}
    if name not in table:
        raise OptionError(f"option {name!r} is not known{nearest(name, [*table, *ALIASES])}")
    if name in _SET_BY_SEARCH:
        raise OptionError(
            f"{name}={value!r} is not accepted in a search: each trial has its own run folder, in the folder that"
            " search=NAME names"
        )
    check_value(table[name], value)
    values[name] = value
