"""The options of the command line: their table, the values that they accept, the plan made from them."""

from rhn.training.options.table import (
    ALIASES,
    DEFAULTS,
    LEVELS,
    OPTIONS,
    PARTS,
    PRECISIONS,
    OptionError,
    Options,
    check_value,
    options_from,
    options_of,
    pick,
)

__all__ = [
    "ALIASES",
    "DEFAULTS",
    "LEVELS",
    "OPTIONS",
    "PARTS",
    "PRECISIONS",
    "OptionError",
    "Options",
    "check_value",
    "options_from",
    "options_of",
    "pick",
]
