"""The command line of every backend: a Sacred experiment. Sacred is used here and nowhere else.

python -m rhn_torch.train [COMMAND] with [NAMED CONFIG ...] [OPTION=VALUE ...]
"""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # Sacred's affair, not the user's
    from sacred import SETTINGS, Experiment
    from sacred.run import Run

from rhn.preflight import PreflightError
from rhn.training.analyse_command import analyse_checkpoint
from rhn.training.dynamic_command import evaluate_dynamic as evaluate_dynamically
from rhn.training.evaluate_command import evaluate_checkpoint
from rhn.training.generate_command import generate_text
from rhn.training.mc_command import evaluate_mc as evaluate_by_monte_carlo
from rhn.training.options import OptionError, RunInterruptedError, translate_arguments
from rhn.training.recipes import RECIPES
from rhn.training.train import train as train_model
from rhn_datasets import DataError

# What the user can mend; the message is one sentence. Ours are among them: OptionError, CheckpointError, DivergedError.
USER_ERRORS = (DataError, ImportError, ValueError, OSError, ArithmeticError, PreflightError)

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
    precision = None  # of matrix products, if faster: float32, tf32, bf16; None: tf32 to train on a GPU, else float32
    recompute = False  # keep less for the backward pass and compute it again: slower, less memory, same results
    device = None  # cpu, gpu, or None: what the framework prefers
    runs_path = "runs"  # where run folders are made
    run = None  # name of this run's folder; None: backend, data and time
    resume = None  # folder of a run to go on with, with its options
    max_steps = None  # stop after this many training steps in all, ready to resume
    max_minutes = None  # stop after this many minutes, ready to resume
    patience = None  # stop after this many epochs without a better validation score
    checkpoint_minutes = 10.0  # how often to save within an epoch
    checkpoint = None  # of every other command than train: the checkpoint file, of any backend
    preflight = True  # before training, prove on a dozen small cases that the backend computes what it should
    progress = True  # draw progress bars
    tensorboard = False  # write the metrics for TensorBoard as well, into the run folder

    evaluation = "full"  # evaluate: full (batch 1), or authors_batched (batch_size, bptt_length, tails dropped)
    temperature = 1.0  # evaluate, generate: divides the logits
    part = "test"  # evaluate_mc, evaluate_dynamic, analyse: part of the data, train, valid or test

    mc_samples = 100  # evaluate_mc: samples whose probabilities are averaged
    mc_rows = 50  # ... of which so many run at once, as rows of a batch; takes memory, changes nothing else
    mc_file = None  # ... where they are summed up, to go on from; None: beside the checkpoint
    legacy_mc = False  # ... sample and filter as the authors' script did

    dynamic_rule = "rms"  # evaluate_dynamic: rms (gradients normalised, weights decay to the trained ones), or sgd
    dynamic_rate = None  # ... learning rate for the loss per token; None: 5e-5 for rms, 1.0 for sgd
    dynamic_length = 5  # ... tokens of a window; the paper takes 5 for words, 20 for characters
    dynamic_decay = 2e-3  # ... rms: pull back to the trained weights
    dynamic_epsilon = 2e-5  # ... rms: added to the root mean square of a gradient
    dynamic_batch_size = 100  # ... rms: rows side by side when gradients are squared and averaged over training data
    dynamic_windows = None  # ... rms: over so many windows; None: over all of the training data

    prompt = None  # generate: the text to go on with; None: a line end
    length = 400  # ... tokens to draw
    top_k = None  # ... from the k likeliest tokens only; None: from all

    analyse_tokens = 2000  # analyse: how many tokens from the start of the part


def create_experiment(backend: str) -> Experiment:
    """The experiment of one backend, with all commands, options and named configs."""
    ex: Any = Experiment(f"rhn_{backend}", save_git_info=False)  # Sacred annotates little, and some of it wrongly
    logger = logging.getLogger(f"rhn_{backend}")
    logger.setLevel(logging.CRITICAL)  # Sacred's own messages; what a run does is said by its command
    ex.logger = logger
    ex.config(defaults)
    for name, recipe in RECIPES.items():
        ex.add_named_config(name, recipe)

    def given(run: Run) -> dict[str, Any]:
        """The options that the user gave, by name or in a named config; those too that are given their default."""
        words = run.meta_info["options"]["UPDATE"]
        named = {name for word in words for name in RECIPES.get(word, {word.partition("=")[0]: None})}
        return {name: run.config[name] for name in {*named, *run.config_modifications.modified} if name in run.config}

    @ex.main
    def train(_config: Mapping[str, Any], _run: Run) -> float | None:
        """Train a model, then score it; with `resume`, go on with a run."""
        return _user_errors(train_model, backend, _config, given(_run), _run.log_scalar)

    @ex.command
    def evaluate(_config: Mapping[str, Any], _run: Run) -> dict[str, float]:
        """Score `checkpoint`, written by any backend, on its data; options given here replace those of its run."""
        return _user_errors(evaluate_checkpoint, backend, _config, given(_run))

    @ex.command
    def evaluate_mc(_config: Mapping[str, Any], _run: Run) -> float:
        """Score `checkpoint` by Monte Carlo dropout: mean probabilities of `mc_samples` dropout masks."""
        return _user_errors(evaluate_by_monte_carlo, backend, _config, given(_run))

    @ex.command
    def evaluate_dynamic(_config: Mapping[str, Any], _run: Run) -> float:
        """Score `checkpoint` while it goes on learning from the text that it is scored on."""
        return _user_errors(evaluate_dynamically, backend, _config, given(_run))

    @ex.command
    def generate(_config: Mapping[str, Any], _run: Run) -> None:
        """Print text that `checkpoint` makes up after `prompt`."""
        _user_errors(generate_text, backend, _config, given(_run))

    @ex.command
    def analyse(_config: Mapping[str, Any], _run: Run) -> None:
        """Show what the gates of `checkpoint` do: their activity, the loss without them, the norms of the state."""
        _user_errors(analyse_checkpoint, backend, _config, given(_run))

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
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
