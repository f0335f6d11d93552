"""The command line of every backend: a Sacred experiment. Sacred is used here and nowhere else.

python -m rhn_torch.train [COMMAND] [with [RECIPE ...] [CONFIG FILE ...] [OPTION=VALUE ...]]
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # Sacred's affair, not the user's
    import sacred.run
    from sacred import SETTINGS, Experiment
    from sacred.run import Run

from rhn.backend import load_backend
from rhn.processes import check_alone, join_processes
from rhn.text import one_line
from rhn.training.evaluate.analyse import analyse_checkpoint
from rhn.training.evaluate.dynamic import evaluate_dynamic as evaluate_dynamically
from rhn.training.evaluate.export_hub import export_hub as write_folder
from rhn.training.evaluate.generate import generate_text
from rhn.training.evaluate.monte_carlo import evaluate_mc as evaluate_by_monte_carlo
from rhn.training.evaluate.neural_cache import evaluate_cache as evaluate_with_cache
from rhn.training.evaluate.stream import evaluate_checkpoint
from rhn.training.options import DEFAULTS, OPTIONS, OptionError, options_from
from rhn.training.options.row import COMMANDS, SHARED
from rhn.training.recipes import RECIPES
from rhn.training.terminal.console import say
from rhn.training.terminal.help import configuration, help_on, overview, recipes
from rhn.training.terminal.read_words import read_words
from rhn.training.terminal.user_errors import with_user_errors
from rhn.training.train import train as train_model

SETTINGS["CAPTURE_MODE"] = "sys"  # capturing file descriptors would swallow the progress bar
# Sacred would seed NumPy's global generator, which takes no seed above 2**32. Nothing here draws from it.
SETTINGS["CONFIG"]["NUMPY_RANDOM_LEGACY_API"] = False
sacred.run.set_global_seed = lambda seed: None

_FLAGS_WITH_ARGUMENT = (
    *("-c", "--comment", "-C", "--capture", "-F", "--file_storage", "-i", "--id", "-l", "--loglevel"),
    *("-m", "--mongo_db", "-n", "--name", "-P", "--priority", "-s", "--sql", "-S", "--s3", "-t", "--tiny_db"),
)

_PACKAGES_OF_FLAGS = {
    **dict.fromkeys(("-m", "--mongo_db"), "pymongo"),
    **dict.fromkeys(("-s", "--sql"), "sqlalchemy"),
    **dict.fromkeys(("-S", "--s3"), "boto3"),
    **dict.fromkeys(("-t", "--tiny_db"), "tinydb"),
}


class RHNExperiment(Experiment):
    """An experiment that remembers which options its caller has given, even if the value is the default.

    Of several processes, only the first one has observers.
    """

    backend = ""
    given: frozenset[str] = frozenset()

    def _create_run(
        self,
        command_name: str | None = None,
        config_updates: Mapping[str, Any] | None = None,
        named_configs: Iterable[str] = (),
        *arguments: Any,
        **more: Any,
    ) -> Run:
        named = {option for recipe in named_configs for option in RECIPES.get(recipe, {})}
        self.given = frozenset({*(config_updates or {}), *named})
        if command_name in COMMANDS and command_name not in SHARED:
            with_user_errors(check_alone, self.backend, command_name)
        run = super()._create_run(command_name, config_updates, named_configs, *arguments, **more)
        if run.observers and not with_user_errors(_is_first_process, self.backend, run.config):
            run.observers.clear()
        return run


def create_experiment(backend: str) -> RHNExperiment:
    """The experiment of one backend, with all commands, options and recipes."""
    ex: Any = RHNExperiment(f"rhn_{backend}", save_git_info=False)  # Sacred annotates little, and some of it wrongly
    logger = logging.getLogger(f"rhn_{backend}")
    logger.setLevel(logging.CRITICAL)  # Sacred's own messages; what a run does is said by its command
    ex.logger = logger
    ex.backend = backend
    ex.add_config(dict(DEFAULTS))
    for name, recipe in RECIPES.items():
        ex.add_named_config(name, recipe)

    def call(command: Callable[..., Any], config: Mapping[str, Any], *more: Any) -> Any:
        given = {name: config[name] for name in ex.given if name in OPTIONS}
        return with_user_errors(command, backend, config, given, *more)

    @ex.main
    def train(_config: Mapping[str, Any], _run: Run) -> float | None:
        return call(train_model, _config, _run.log_scalar)

    @ex.command
    def evaluate(_config: Mapping[str, Any]) -> dict[str, float]:
        return call(evaluate_checkpoint, _config)

    @ex.command
    def evaluate_mc(_config: Mapping[str, Any]) -> float:
        return call(evaluate_by_monte_carlo, _config)

    @ex.command
    def evaluate_dynamic(_config: Mapping[str, Any]) -> float:
        return call(evaluate_dynamically, _config)

    @ex.command
    def evaluate_cache(_config: Mapping[str, Any]) -> float:
        return call(evaluate_with_cache, _config)

    @ex.command
    def generate(_config: Mapping[str, Any]) -> None:
        call(generate_text, _config)

    @ex.command
    def analyse(_config: Mapping[str, Any]) -> None:
        call(analyse_checkpoint, _config)

    @ex.command
    def export_hub(_config: Mapping[str, Any]) -> str:
        return call(write_folder, _config)

    @ex.command(unobserved=True)
    def print_config(_config: Mapping[str, Any]) -> None:
        with_user_errors(options_from, _config)
        say(configuration(_config, {name for name in DEFAULTS if _config[name] != DEFAULTS[name]}))

    @ex.command(unobserved=True)
    def print_named_configs() -> None:
        say(recipes())

    for command, meaning in COMMANDS.items():
        ex.commands[command].__doc__ = meaning
    return ex


def run(backend: str, arguments: Sequence[str] | None = None) -> None:
    """Run the command line of `backend`; `arguments` are the words after the program's name (None: the process's)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    program = f"python -m rhn_{backend}.train"
    try:
        words = read_words(arguments, RECIPES, _FLAGS_WITH_ARGUMENT)
        if words.command == "help" or {"-h", "--help"} & set(words.flags):
            about = words.values.get("about", words.command)
            say(overview(program) if about in ("help", None) else help_on(about, program))
            return
        _check_observers(words.flags)
        create_experiment(backend).run_commandline([program, *words.for_sacred()])
    except (OptionError, ImportError) as error:
        sys.exit(f"error: {one_line(str(error))}")


def _is_first_process(backend: str, config: Mapping[str, Any]) -> bool:
    return join_processes(load_backend(backend), options_from(config).device).is_first


def _check_observers(flags: Sequence[str]) -> None:
    """Raise ImportError if a flag needs a package that is not installed."""
    for flag in flags:
        package = _PACKAGES_OF_FLAGS.get(flag)
        if package is not None and importlib.util.find_spec(package) is None:
            raise ImportError(f"{flag} needs {package}, which is not installed: pip install {package}")
