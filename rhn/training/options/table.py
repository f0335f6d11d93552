"""The table of all options of the command line: default, meaning, accepted values, the authors' names, commands.

The checks of values, `print_config`, the help, the suggestions for misspelt names and the documentation's page of
options are all made from this table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rhn.spec.config import ACTIVATIONS
from rhn.spec.optimizers import OPTIMIZERS
from rhn.spec.parameters import INITIALIZERS
from rhn.training.options.accepted import (
    either,
    flag,
    folder_name,
    fraction,
    initial_value,
    integer,
    number,
    one_of,
    path,
    paths,
    text,
)
from rhn.training.options.row import COMPUTE, OPENS, TRAIN, Option
from rhn.training.options.row import arithmetic as _arithmetic
from rhn.training.options.row import data as _data
from rhn.training.options.row import dropout as _dropout
from rhn.training.options.row import model as _model
from rhn.training.options.row import of as _of
from rhn.training.options.row import option as _option
from rhn.training.options.row import run as _run
from rhn.training.options.row import training as _training
from rhn.training.schedules import SCHEDULES
from rhn_datasets import CORPORA

PRECISIONS = ("float32", "tf32", "bf16")
PARTS = ("train", "valid", "test")
LEVELS = ("word", "char", "byte")


@dataclass(frozen=True)
class Options:
    """The values of all options; `Options()` has the defaults.

    Raises:
        OptionError: an option has a value that is not accepted.
    """

    dataset: str = _data("ptb", one_of(*CORPORA), "the corpus; pydoc needs no download, text is your own text")
    data_path: Any = _data(
        None, either(paths(), None), "file or folder with the data; None: the cache, or a download", may_change=True
    )
    level: str | None = _data(None, one_of(None, *LEVELS), "what a token is, if the corpus leaves a choice")
    vocab_size: int | None = _data(
        None,
        either(integer(), None),
        "number of symbols, which must be the number in the data; None: not checked",
        commands=TRAIN,
    )

    hidden_size: int = _model(830, integer(), "units per layer, H")
    recurrence_depth: int = _model(10, integer(), "micro-steps per time step, L", "depth")
    num_layers: int = _model(1, integer(), "number of stacked RHN layers")
    embedding_size: int | None = _model(None, either(integer(), None), "width of the embedding, E; None: hidden_size")
    tie_weights: bool = _model(True, flag(), "one matrix for embedding and softmax", "tied", "tied_embeddings")
    couple_gates: bool = _model(True, flag(), "carry gate c = 1 - t; otherwise it has weights of its own")
    activation: str = _model("tanh", one_of(*ACTIVATIONS), "nonlinearity of the candidate h")
    initializer: str = _model(
        "uniform", one_of(*INITIALIZERS), "distribution of the initial weights; fan_in: normal, 1/sqrt(inputs)"
    )
    init_scale: float = _model(
        0.04, initial_value(signed=False), "half-width of the uniform distribution, or deviation of the normal one"
    )
    embedding_init_scale: float | None = _model(
        None, either(initial_value(signed=False), None), "init_scale of the embedding; None: as for the other weights"
    )
    transform_bias: float = _model(
        -2.0, initial_value(signed=True), "initial bias of the transform gate, learned", "init_bias", "init_T_bias"
    )
    other_bias: Any = _model(
        "uniform", either(initial_value(signed=True), "uniform"), "initial value of all other biases", "init_other_bias"
    )

    batch_size: int = _training(
        20,
        integer(),
        "rows of a batch, each reading its own part of the text",
        commands=("train", "evaluate"),
        may_change=False,
    )
    bptt_length: int = _training(
        35,
        integer(),
        "time steps of a window, through which gradients flow back",
        "num_steps",
        commands=("train", "evaluate", "evaluate_mc"),
        may_change=False,
    )
    bptt_jitter: float | None = _training(
        None,
        either(number(), None),
        "standard deviation of the window length, as in AWD-LSTM; None: constant length",
        may_change=False,
    )
    epochs: int = _training(500, integer(), "passes over the training data", "max_max_epoch")
    optimizer: str = _training("sgd", one_of(*OPTIMIZERS), "update rule of a training step", may_change=False)
    momentum: float = _training(0.0, fraction(), "sgd: decay of the sum of gradients that a step follows")
    beta1: float = _training(0.9, fraction(), "adam: decay of the mean of gradients")
    beta2: float = _training(0.999, fraction(), "adam: decay of the mean of squared gradients")
    epsilon: float = _training(1e-8, number(), "adam: added to the root of the mean of squared gradients")
    learning_rate: float = _training(
        0.2, number(), "learning rate of the first epoch; 0.2 is for SGD on a loss summed over time"
    )
    schedule: str = _training(
        "exponential", one_of(*SCHEDULES), "how the learning rate changes; the paper uses exponential"
    )
    lr_decay: float = _training(1.02, number(), "divisor of the learning rate, every epoch or at every plateau")
    decay_after: int = _training(20, integer(0), "first epoch with a decayed rate, counted from 0", "max_epoch")
    evaluate_steps: int | None = _training(
        None,
        either(integer(), None),
        "training steps between validations; None: validate after every epoch",
        may_change=False,
    )
    plateau_patience: int = _training(3, integer(), "validations without a better score that make a plateau")
    average_after: int | None = _training(
        None,
        either(integer(), None),
        "NT-ASGD: average the weights once validation is worse than this many validations ago",
    )
    weight_decay: float = _training(1e-7, number(zero=True), "adds 0.5 * weight_decay * |parameters|^2 to the loss")
    activation_regularization: float = _training(
        0.0, number(zero=True), "alpha of AWD-LSTM: adds alpha * the mean squared output to the loss", "alpha"
    )
    temporal_activation_regularization: float = _training(
        0.0, number(zero=True), "beta of AWD-LSTM: the same for the change of the output per time step", "beta"
    )
    decoupled_weight_decay: bool = _training(
        False, flag(), "shrink the weights outside the loss (AdamW; with sgd as in Torch7)", may_change=False
    )
    max_grad_norm: float = _training(
        10.0,
        number(),
        "largest global norm of the gradients; larger ones are scaled down",
        commands=("train", "evaluate_dynamic"),
    )
    max_grad_value: float | None = _training(
        None, either(number(), None), "largest entry of a gradient, applied after max_grad_norm; None: no limit"
    )

    share_gate_masks: bool = _option(
        "dropout", True, flag(), "one dropout mask for all gates; otherwise one per gate", "tied_noise"
    )
    drop_embedding: float = _dropout(0.25, fraction(), "probability of dropping a word type from a window", "drop_x")
    drop_input: float = _dropout(0.75, fraction(), "probability of dropping an input unit of a layer", "drop_i")
    drop_state: float = _dropout(0.25, fraction(), "probability of dropping a unit of the state", "drop_h", "drop_s")
    drop_output: float = _dropout(0.75, fraction(), "probability of dropping an input of the softmax", "drop_o")
    drop_update: float = _dropout(0.0, fraction(), "probability of dropping a unit of the candidate h")
    time_masks: bool = _option(
        "dropout",
        False,
        flag(),
        "draw input and output masks for every time step, not once per window",
        may_change=True,
    )
    reset_probability: float = _option(
        "dropout", 0.0, fraction(), "probability that a row starts a window from a zero state", may_change=True
    )

    dtype: str = _arithmetic("float32", one_of("float32", "float64"), "type of parameters and states", may_change=False)
    precision: str | None = _arithmetic(
        None,
        one_of(None, *PRECISIONS),
        "factors of matrix products may be rounded to this; None: tf32 to train on a GPU, else float32",
    )
    recompute: bool = _arithmetic(
        False, flag(), "save memory by computing parts of the forward pass again; same results", commands=TRAIN
    )
    device: str | None = _arithmetic(
        None, either(text('device="0"'), None), "where to compute: cpu or gpu; None: the framework's preference"
    )
    seed: int = _arithmetic(
        1,
        integer(0, 2**64 - 1),
        "seed of initial values, masks and samples, which are the same in every backend",
        commands=("train", "evaluate_mc", "generate"),
        may_change=False,
    )

    runs_path: str = _run("runs", path(), "folder in which run folders are made")
    run: str | None = _run(
        None, either(folder_name(), None), "name of the new run folder; None: from backend, data and time"
    )
    resume: str | None = _run(None, either(path(), None), "folder of a run to continue with its options")
    max_steps: int | None = _run(
        None, either(integer(), None), "stop after this many training steps in total; the run can be resumed"
    )
    max_minutes: float | None = _run(
        None, either(number(), None), "stop after this many minutes; the run can be resumed"
    )
    patience: int | None = _run(
        None, either(integer(), None), "stop after this many validations without a better score"
    )
    checkpoint_minutes: float = _run(10.0, number(), "minutes between checkpoints within an epoch")
    preflight: bool = _run(True, flag(), "before training, check on a dozen small cases that the backend is right")
    progress: bool = _run(
        True, flag(), "show progress: a bar on a terminal, otherwise one line a minute", commands=COMPUTE
    )
    tensorboard: bool = _run(False, flag(), "also write the metrics for TensorBoard, into the run folder")
    checkpoint: str | None = _run(
        None, either(path(), None), "the checkpoint: a file, or a folder of export_hub", "load_model", commands=OPENS
    )
    part: str = _run(
        "test",
        one_of(*PARTS),
        "part of the data to read",
        commands=("evaluate_mc", "evaluate_dynamic", "evaluate_cache", "analyse"),
    )
    temperature: float = _run(1.0, number(), "divisor of the logits", commands=("evaluate", "generate"))

    evaluation: str = _of(
        "evaluate",
        "full",
        one_of("full", "windows", "authors_batched"),
        "full: batch 1, every token; windows: the same, but from a zero state every bptt_length tokens; "
        "authors_batched: with batch_size and bptt_length, incomplete windows dropped",
    )
    mc_samples: int = _of(
        "evaluate_mc", 100, integer(), "number of samples whose probabilities are averaged", "mc_steps"
    )
    mc_rows: int = _of("evaluate_mc", 50, integer(), "samples computed at once; changes memory, not results")
    mc_file: str | None = _of(
        "evaluate_mc",
        None,
        either(path(), None),
        "file that keeps the samples so far, to continue later; None: beside the checkpoint",
    )
    legacy_mc: bool = _of("evaluate_mc", False, flag(), "sample and filter as the authors' script did")

    dynamic_rule: str = _of(
        "evaluate_dynamic",
        "rms",
        one_of("rms", "sgd"),
        "rms: normalised gradients, weights pulled back to the trained ones; sgd: plain",
    )
    dynamic_rate: float | None = _of(
        "evaluate_dynamic",
        None,
        either(number(), None),
        "learning rate for the loss per token; None: 5e-5 for rms, 1.0 for sgd",
    )
    dynamic_length: int = _of(
        "evaluate_dynamic", 5, integer(), "tokens per window; the paper uses 5 for words, 20 for characters"
    )
    dynamic_decay: float = _of(
        "evaluate_dynamic", 2e-3, number(zero=True), "rms: strength of the pull back to the trained weights"
    )
    dynamic_epsilon: float = _of("evaluate_dynamic", 2e-5, number(), "rms: added to the root mean square of a gradient")
    dynamic_batch_size: int = _of(
        "evaluate_dynamic", 100, integer(), "rms: batch size for the average of the squared gradients"
    )
    dynamic_windows: int | None = _of(
        "evaluate_dynamic", None, either(integer(), None), "rms: training windows for this average; None: all"
    )

    cache_window: int = _of("evaluate_cache", 500, integer(), "number of past tokens in the cache")
    cache_theta: float | None = _of(
        "evaluate_cache",
        None,
        either(number(zero=True), None),
        "weight of the similarity of two states; None: the best of a grid on the valid part",
    )
    cache_lambda: float | None = _of(
        "evaluate_cache",
        None,
        either(fraction(), None),
        "share of the cache in the prediction; None: the best of a grid on the valid part",
    )

    prompt: str | None = _of(
        "generate", None, either(text('prompt="1984"'), None), "text to continue; None: a line end"
    )
    length: int = _of("generate", 400, integer(1, 10**7), "number of tokens to sample")
    top_k: int | None = _of(
        "generate", None, either(integer(), None), "sample only from the k most likely tokens; None: from all"
    )

    analyse_tokens: int = _of("analyse", 2000, integer(), "number of tokens to read, from the start of the part")
    analyse_jacobians: int = _of("analyse", 20, integer(), "number of time steps whose Jacobians are computed")

    folder: str | None = _of("export_hub", None, either(path(), None), "folder to write; None: beside the checkpoint")
    stored_dtype: str | None = _of("export_hub", None, one_of(None, "float16"), "type of the parameters; None: as is")
    license: str | None = _of(
        "export_hub", None, either(text("license=mit"), None), "licence of the parameters; None: the card states none"
    )

    def __post_init__(self) -> None:
        for name, option in OPTIONS.items():
            check_value(option, getattr(self, name))


OPTIONS: dict[str, Option] = {
    field.name: Option(name=field.name, default=field.default, **field.metadata)
    for field in dataclasses.fields(Options)
}
ALIASES: dict[str, str] = {alias: option.name for option in OPTIONS.values() for alias in option.aliases}
DEFAULTS: dict[str, Any] = {name: option.default for name, option in OPTIONS.items()}


class OptionError(ValueError):
    """An option of the command line is not accepted; the message is one sentence for the user."""


T = TypeVar("T")


def pick(cls: type[T], values: Mapping[str, Any]) -> T:
    """An instance of the dataclass or named tuple `cls`, with its fields taken from `values` by name."""
    return cls(**{name: values[name] for name in cls.__annotations__})


def check_value(option: Option, value: Any) -> None:
    """Raise OptionError unless `option` accepts `value`."""
    try:
        option.accepted.check(option.name, value)
    except ValueError as error:
        raise OptionError(str(error)) from None


def options_from(values: Mapping[str, Any]) -> Options:
    """`Options` with the given values, and defaults for the others. Names that are not options are ignored."""
    return Options(**{name: value for name, value in values.items() if name in OPTIONS})


def options_of(command: str) -> list[Option]:
    """The options that `command` uses."""
    return [option for option in OPTIONS.values() if command in option.commands]
