"""One option of the command line, and functions that write a row of the table in `rhn.training.options`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from rhn.training.options.accepted import Accepted

# The commands and their meaning.
COMMANDS = {
    "train": "Train a model, then score it; with resume=FOLDER, continue a run.",
    "evaluate": "Score a checkpoint of any backend on its data.",
    "evaluate_mc": "Score a checkpoint by Monte Carlo dropout: average the predictions of many dropout masks.",
    "evaluate_dynamic": "Score a checkpoint that keeps learning from the text that it has been scored on.",
    "evaluate_cache": "Score a checkpoint with a neural cache: it also looks up what followed similar states so far.",
    "generate": "Sample text from a checkpoint, after a prompt.",
    "analyse": "Show how gates and states of a checkpoint behave: activity, the loss without a gate, Jacobians.",
    "export_hub": "Write a folder to share: the parameters and vocabulary of a checkpoint, and a model card.",
}
# Those that several processes share; the others run in one.
SHARED = ("train", "evaluate_mc")
TRAIN = ("train",)
SCORES = ("evaluate", "evaluate_mc", "evaluate_dynamic", "evaluate_cache", "analyse")
COMPUTE = (*TRAIN, *SCORES, "generate")
OPENS = (*SCORES, "generate", "export_hub")


@dataclass(frozen=True)
class Option:
    """One option of the command line.

    Attributes:
        name: as the user types it.
        group: heading of the help under which it is listed.
        default: its value if the user gives none.
        meaning: one line for the user.
        accepted: the values that it may have.
        commands: names of the commands that use it.
        aliases: its names in the authors' four programs.
        may_change: whether a run may be resumed with another value.
    """

    name: str
    group: str
    default: Any
    meaning: str
    accepted: Accepted
    commands: tuple[str, ...]
    aliases: tuple[str, ...]
    may_change: bool


def option(
    group: str,
    default: Any,
    accepted: Accepted,
    meaning: str,
    *aliases: str,
    commands: tuple[str, ...] = TRAIN,
    may_change: bool = False,
) -> Any:
    """A row of the table."""
    description = {
        "group": group,
        "accepted": accepted,
        "meaning": meaning,
        "aliases": aliases,
        "commands": commands,
        "may_change": may_change,
    }
    return dataclasses.field(default=default, metadata=description)


def data(default: Any, accepted: Accepted, meaning: str, *aliases: str, **more: Any) -> Any:
    """A row about the data."""
    return option("data", default, accepted, meaning, *aliases, **{"commands": ("train", *SCORES), **more})


def model(default: Any, accepted: Accepted, meaning: str, *aliases: str) -> Any:
    """A row about the architecture and its initial values."""
    return option("model", default, accepted, meaning, *aliases)


def training(default: Any, accepted: Accepted, meaning: str, *aliases: str, **more: Any) -> Any:
    """A row about the steps of a training."""
    return option("training", default, accepted, meaning, *aliases, **{"may_change": True, **more})


def dropout(default: Any, accepted: Accepted, meaning: str, *aliases: str) -> Any:
    """A rate of dropout."""
    return option("dropout", default, accepted, meaning, *aliases, commands=("train", "evaluate_mc"), may_change=True)


def arithmetic(default: Any, accepted: Accepted, meaning: str, **more: Any) -> Any:
    """A row about how numbers are computed, for every command that does."""
    return option("arithmetic", default, accepted, meaning, **{"commands": COMPUTE, "may_change": True, **more})


def run(default: Any, accepted: Accepted, meaning: str, *aliases: str, **more: Any) -> Any:
    """A row about what a run does, stores and shows."""
    return option("run", default, accepted, meaning, *aliases, **{"may_change": True, **more})


def of(command: str, default: Any, accepted: Accepted, meaning: str, *aliases: str) -> Any:
    """A row for a single command."""
    return option(command, default, accepted, meaning, *aliases, commands=(command,), may_change=True)
