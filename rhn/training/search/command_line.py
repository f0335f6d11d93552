"""The command line of the search, for every backend.

python -m rhn_torch.search with [SPACE] [RECIPE ...] [CONFIG FILE ...] [OPTION=VALUE ...] [OPTION=DISTRIBUTION ...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rhn.training.search.named_spaces import SPACES
from rhn.training.search.request import SEARCH_OPTIONS, read_request
from rhn.training.search.space import EXPECTED
from rhn.training.search.trials import search
from rhn.training.terminal.console import say
from rhn.training.terminal.help import option_lines
from rhn.training.terminal.user_errors import with_user_errors


def run(backend: str, arguments: Sequence[str] | None = None) -> None:
    """Run the search of `backend`; `arguments` are the words after the program's name (None: the process's)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"help", "-h", "--help"} & {*arguments[:1]}:
        say(overview(f"python -m rhn_{backend}.search"))
    else:
        with_user_errors(lambda: search(read_request(backend, arguments)))


def overview(program: str) -> str:
    """The page of `help`."""
    spaces = [f"  {name:20} {recipe}: {', '.join(dimensions)}" for name, (recipe, dimensions) in SPACES.items()]
    return "\n".join(
        [
            f"{program} with [SPACE] [RECIPE] [FILE.yaml] [OPTION=VALUE ...] [OPTION=DISTRIBUTION ...]",
            "",
            "Train many models with options drawn from a space, and show the options with the best validation score.",
            "Repeat the command to continue a search that was stopped or killed. Several processes can share a search.",
            "",
            "All options of the training command are accepted. The seed and the options of model, training and dropout",
            f"can have a distribution instead of a value: {EXPECTED}.",
            "",
            "Options of the search:",
            *(line for option in SEARCH_OPTIONS.values() for line in option_lines(option)),
            "",
            "Named spaces, each with its recipe and the options that are searched:",
            *spaces,
            "",
            "Examples:",
            f"  {program} with ptb_cpu_space",
            f"  {program} with shakespeare data_path=my.txt 'learning_rate=log(1e-3, 1e-2)' trials=8",
            f"  {program} with demo 'hidden_size,recurrence_depth=choice((192, 3), (256, 2))' max_minutes=2",
        ]
    )
