"""The words of the command line: the authors' names for our options, and what to say of a name nobody knows."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

# Names in the authors' four programs -> ours.
ALIASES = {
    "depth": "recurrence_depth",
    "num_steps": "bptt_length",
    "drop_x": "drop_embedding",
    "drop_i": "drop_input",
    "drop_h": "drop_state",
    "drop_s": "drop_state",
    "drop_o": "drop_output",
    "tied_noise": "share_gate_masks",
    "tied": "tie_weights",
    "tied_embeddings": "tie_weights",
    "init_bias": "transform_bias",
    "init_T_bias": "transform_bias",
    "init_other_bias": "other_bias",
    "max_max_epoch": "epochs",
    "max_epoch": "decay_after",
    "mc_steps": "mc_samples",
    "load_model": "checkpoint",
}

T = TypeVar("T")


class OptionError(ValueError):
    """An option of the command line is not accepted; the message is one sentence for the user."""


class RunInterruptedError(Exception):
    """A signal ended the run; everything is saved. The message says how to go on."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_status = 128 + signal_number


def translate_arguments(arguments: Sequence[str], options: Collection[str], recipes: Collection[str]) -> list[str]:
    """A command line of Sacred's form with the authors' option names replaced by ours.

    Args:
        arguments: words of the command line; what follows `with` are named configs and `option=value`.
        options: names of all options.
        recipes: names of all named configs.

    Raises:
        OptionError: an option or named config does not exist; the message suggests the nearest one.
    """
    if "with" not in arguments:
        return list(arguments)
    start = list(arguments).index("with") + 1
    translated = list(arguments[:start])
    for word in arguments[start:]:
        name, equals, value = word.partition("=")
        if not equals:
            if word not in recipes and not word.endswith((".json", ".yaml", ".pickle")):
                raise OptionError(f"named config {word!r} is not known{_nearest(word, recipes)}")
            translated.append(word)
            continue
        name = ALIASES.get(name, name)
        if name not in options:
            raise OptionError(f"option {name!r} is not known{_nearest(name, [*options, *ALIASES])}")
        translated.append(f"{name}={value}")
    return translated


def pick(cls: type[T], config: Mapping[str, Any]) -> T:
    """An instance of the dataclass or named tuple `cls`, its fields taken from `config` by name."""
    return cls(**{name: config[name] for name in cls.__annotations__})


def _nearest(name: str, candidates: Collection[str]) -> str:
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(candidates))}"
