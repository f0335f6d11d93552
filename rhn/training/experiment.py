"""The command line of every backend: a Sacred experiment. Sacred is used here and nowhere else.

python -m rhn_torch.train [COMMAND] with [NAMED CONFIG ...] [OPTION=VALUE ...]
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # Sacred's affair, not the user's
    from sacred import SETTINGS, Experiment
    from sacred.run import Run

from rhn.training import commands
from rhn.training.options import OptionError, translate_arguments
from rhn.training.recipes import RECIPES

SETTINGS["CAPTURE_MODE"] = "sys"  # capturing file descriptors would swallow the progress bar


def defaults() -> None:
    dataset = "ptb"  # ptb, enwik8, text8, pydoc (no download), or text (your own)
    data_path = None  # file or folder with the data; None looks in the cache, then downloads
    level = None  # word, char or byte, where the data leave a choice
    vocab_size = None  # None: that of the data; a number must agree with the data

    hidden_size = 830  # units of a layer, H
    recurrence_depth = 10  # micro-steps per time step, L
    num_layers = 1  # RHN layers stacked on each other
    embedding_size = None  # width of the embedding, E; None: hidden_size
    tie_weights = True  # one matrix for embedding and softmax
    couple_gates = True  # carry gate c = 1 - t; otherwise it has weights of its own
    activation = "tanh"  # of the candidate h: tanh, sigmoid or relu
    init_scale = 0.04  # initial values are uniform in (-init_scale, init_scale)
    transform_bias = -2.0  # initial bias of the transform gate, learned
    other_bias = "uniform"  # initial value of all other biases: uniform, or a number

    batch_size = 20  # streams that are read side by side
    bptt_length = 35  # time steps of a window, as far as gradients reach back
    epochs = 500  # passes over the training data
    learning_rate = 0.2  # of clipped SGD; belongs to a loss summed over time
    lr_decay = 1.02  # the rate is divided by this every epoch from decay_after on
    decay_after = 20  # the first decayed epoch, counted from 0
    weight_decay = 1e-7  # adds 0.5 * weight_decay * |parameters|^2 to the loss that is differentiated
    max_grad_norm = 10.0  # gradients with a larger global norm are scaled down to it
    share_gate_masks = True  # one dropout mask for all gates; otherwise one per gate
    drop_embedding = 0.25  # probability of dropping a word type from a window
    drop_input = 0.75  # ... an input unit of each layer
    drop_state = 0.25  # ... a unit of the recurrent state
    drop_output = 0.75  # ... an input unit of the softmax

    seed = 1  # of initial values and masks: the same numbers in every backend
    dtype = "float32"  # float32 or float64
    device = None  # cpu, gpu, or None: what the framework prefers
    runs_path = "runs"  # where run folders are made
    run = None  # name of this run's folder; None: backend, data and time
    checkpoint = None  # evaluate: the checkpoint file, of any backend
    checkpoint_minutes = 10.0  # how often to save within an epoch
    progress = True  # draw progress bars


def create_experiment(backend: str) -> Experiment:
    """The experiment of one backend, with all commands, options and named configs."""
    ex = Experiment(f"rhn_{backend}", save_git_info=False)
    logger = logging.getLogger(f"rhn_{backend}")
    logger.setLevel(logging.CRITICAL)  # Sacred's own messages; what a run does is said by its command
    ex.logger = logger  # type: ignore[assignment]  # Sacred annotates nothing and starts with None
    ex.config(defaults)
    for name, recipe in RECIPES.items():
        ex.add_named_config(name, recipe)

    @ex.main
    def train(_config: Mapping[str, Any], _run: Run) -> float:
        """Train a model, then score it."""
        return _user_errors(commands.train, backend, _config, _run.log_scalar)

    @ex.command
    def evaluate(_config: Mapping[str, Any], _run: Run) -> dict[str, float]:
        """Score `checkpoint`, written by any backend, on its data; options given here replace those of its run."""
        given = {name: _config[name] for name in _run.config_modifications.modified}
        return _user_errors(commands.evaluate_checkpoint, backend, _config, given)

    return ex


def run(backend: str, arguments: Sequence[str] | None = None) -> None:
    """Run the command line of `backend`; `arguments` are the words after the program's name (None: the process's)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    ex = create_experiment(backend)
    options = {name for name in ex.configurations[0]() if not name.startswith("__")}
    try:
        words = translate_arguments(arguments, options, RECIPES)
    except OptionError as error:
        sys.exit(f"error: {error}")
    ex.run_commandline([f"python -m rhn_{backend}.train", *words])


def _user_errors(command: Callable[..., Any], *arguments: Any) -> Any:
    """Run a command; what is the user's to mend ends the process with its one sentence, not with a traceback."""
    try:
        return command(*arguments)
    except commands.USER_ERRORS as error:
        sys.exit(f"error: {error}")
    except commands.RunInterruptedError as stop:
        print(stop)
        sys.exit(stop.exit_status)
