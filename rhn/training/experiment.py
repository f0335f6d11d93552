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

from rhn.training.evaluate_command import evaluate_checkpoint
from rhn.training.options import OptionError, RunInterruptedError, translate_arguments
from rhn.training.recipes import RECIPES
from rhn.training.train_command import train as train_model
from rhn_datasets import DataError

# What the user can mend; the message is one sentence. Ours are among them: OptionError, CheckpointError, DivergedError.
USER_ERRORS = (DataError, ImportError, ValueError, OSError, ArithmeticError)

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
    optimizer = "sgd"  # sgd or adam
    beta1 = 0.9  # of adam: decay of the mean of gradients
    beta2 = 0.999  # of adam: decay of the mean of squared gradients
    epsilon = 1e-8  # of adam: added to the root of the latter
    learning_rate = 0.2  # of the first epoch; 0.2 belongs to SGD on a loss summed over time
    schedule = "exponential"  # of the rate: exponential (the paper's), constant, cosine or plateau
    lr_decay = 1.02  # the rate is divided by this every epoch from decay_after on, or at every plateau
    decay_after = 20  # the first decayed epoch, counted from 0
    plateau_patience = 3  # epochs without a better validation score that make a plateau
    average_after = None  # NT-ASGD: average the weights once validation is worse than this many epochs before
    weight_decay = 1e-7  # adds 0.5 * weight_decay * |parameters|^2 to the loss that is differentiated
    decoupled_weight_decay = False  # instead: shrink the weights beside the step (AdamW; with sgd as in Torch7)
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
    resume = None  # folder of a run to go on with, with its options
    max_steps = None  # stop after this many training steps in all, ready to resume
    max_minutes = None  # stop after this many minutes, ready to resume
    patience = None  # stop after this many epochs without a better validation score
    checkpoint_minutes = 10.0  # how often to save within an epoch
    checkpoint = None  # evaluate: the checkpoint file, of any backend
    progress = True  # draw progress bars
    tensorboard = False  # write the metrics for TensorBoard as well, into the run folder


def create_experiment(backend: str) -> Experiment:
    """The experiment of one backend, with all commands, options and named configs."""
    ex = Experiment(f"rhn_{backend}", save_git_info=False)
    logger = logging.getLogger(f"rhn_{backend}")
    logger.setLevel(logging.CRITICAL)  # Sacred's own messages; what a run does is said by its command
    ex.logger = logger  # type: ignore[assignment]  # Sacred annotates nothing and starts with None
    ex.config(defaults)
    for name, recipe in RECIPES.items():
        ex.add_named_config(name, recipe)

    def given(run: Run) -> dict[str, Any]:
        """The options that the user gave, by name or in a named config."""
        return {name: run.config[name] for name in run.config_modifications.modified}

    @ex.main
    def train(_config: Mapping[str, Any], _run: Run) -> float | None:
        """Train a model, then score it; with `resume`, go on with a run."""
        return _user_errors(train_model, backend, _config, given(_run), _run.log_scalar)

    @ex.command
    def evaluate(_config: Mapping[str, Any], _run: Run) -> dict[str, float]:
        """Score `checkpoint`, written by any backend, on its data; options given here replace those of its run."""
        return _user_errors(evaluate_checkpoint, backend, _config, given(_run))

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
    except USER_ERRORS as error:
        sys.exit(f"error: {error}")
    except RunInterruptedError as stop:
        print(stop)
        sys.exit(stop.exit_status)
