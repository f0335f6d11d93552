"""Opens the checkpoint of a run of any backend: builds its model and loads its data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rhn.backend import Backend, Model, load_backend
from rhn.checkpoint import Checkpoint, CheckpointError, load_language_model
from rhn.processes import ALONE, Processes
from rhn.spec.config import RHNConfig
from rhn.spec.optimizers import PAPER_SGD, Optimizer
from rhn.text import one_line
from rhn.training.options import DEFAULTS, OPTIONS, OptionError, Options, options_from
from rhn.training.options.plan import Plan
from rhn.training.terminal.console import say
from rhn_datasets import Corpus, DataError, Vocabulary, load_corpus

# The options that are read from a checkpoint: they describe its data and its model, and name no place to write to.
_FROM_CHECKPOINT = (
    *(name for name, option in OPTIONS.items() if option.group in ("data", "model", "dropout")),
    *("batch_size", "bptt_length", "max_grad_norm", "dtype", "precision", "seed"),
)


@dataclass(frozen=True)
class TrainedModel:
    """A checkpoint of a language model with its vocabulary.

    Attributes:
        checkpoint: the arrays; the parameters fit the configuration and are finite.
        config: the architecture.
        vocabulary: has as many symbols as `config` says.
        metadata: all metadata of the file.
    """

    checkpoint: Checkpoint
    config: RHNConfig
    vocabulary: Vocabulary
    metadata: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> TrainedModel:
        """Read the file at `path`; CheckpointError if it is not such a checkpoint."""
        checkpoint, config, metadata = load_language_model(path)
        try:
            vocabulary = Vocabulary.from_json(metadata["vocabulary"])
        except (KeyError, DataError) as error:
            raise CheckpointError(f"{path} holds no vocabulary ({error})") from error
        if len(vocabulary) != config.vocab_size:
            raise CheckpointError(f"{path} is damaged: {len(vocabulary)} symbols for a model of {config.vocab_size}")
        return cls(checkpoint, config, vocabulary, metadata)


@dataclass(frozen=True)
class OpenedCheckpoint:
    """A checkpoint ready for use.

    Attributes:
        backend: the backend of the model, not necessarily the one that wrote the checkpoint.
        model: the model, with the parameters of the checkpoint.
        vocabulary: the vocabulary of the model.
        plan: made from the options of this command line; missing options about data and model come from the checkpoint.
        names_data: whether the command line or the checkpoint names the data.
    """

    backend: Backend
    model: Model
    vocabulary: Vocabulary
    plan: Plan
    names_data: bool

    @property
    def options(self) -> Options:
        """The options of the plan."""
        return self.plan.options

    def load_corpus(self) -> Corpus:
        """Load the data that the options name.

        Raises:
            OptionError: neither the command line nor the checkpoint names the data.
            CheckpointError: the vocabulary of the data is not that of the model.
        """
        o = self.options
        if not self.names_data:
            raise OptionError(f"dataset=None is not accepted: {o.checkpoint} does not say on which data it was trained")
        corpus = load_corpus(o.dataset, o.data_path, level=o.level)
        if corpus.vocabulary != self.vocabulary:
            raise CheckpointError(
                f"checkpoint={o.checkpoint} has another vocabulary ({len(self.vocabulary)} symbols) than"
                f" dataset={o.dataset!r} ({len(corpus.vocabulary)} symbols)"
            )
        return corpus


def open_checkpoint(
    backend_name: str, values: Mapping[str, Any], given: Mapping[str, Any], processes: Processes = ALONE
) -> OpenedCheckpoint:
    """Build the model of the option `checkpoint`.

    Args:
        backend_name: name of the backend that builds it.
        values: values of all options of this command line.
        given: the options that the user gave; other options about data and model come from the checkpoint.
        processes: the processes that open it; each builds its own model on its own device.

    Raises:
        OptionError: no checkpoint is named.
        CheckpointError: the file is not a checkpoint of a language model.
    """
    path = named_checkpoint(values)
    file = TrainedModel.read(path)
    described = described_options(path, file, _FROM_CHECKPOINT)
    plan = Plan.from_options({**values, **described, **given})
    backend = load_backend(backend_name)
    options = replace(plan.options, device=processes.device(plan.options.device))
    precision = plan.precision(training=False, device=options.device or "cpu")
    model = build_model(backend, file.config, file.checkpoint.parameters, options, precision)
    say(f"{path}: written by {one_line(str(file.metadata.get('backend')))}, opened by {backend_name}")
    return OpenedCheckpoint(backend, model, file.vocabulary, plan, "dataset" in {**described, **given})


def named_checkpoint(values: Mapping[str, Any]) -> str:
    """The option `checkpoint`, after a check of all options.

    Raises:
        OptionError: an option has a value that is not accepted, or no checkpoint is named.
    """
    Plan.from_options(values)  # before anything is loaded
    if values["checkpoint"] is None:
        raise OptionError("checkpoint=None is not accepted: expected the file of a checkpoint")
    return values["checkpoint"]


def described_options(path: str, file: TrainedModel, names: Collection[str]) -> dict[str, Any]:
    """The options in a checkpoint of the run that wrote it, those among `names`.

    Raises:
        CheckpointError: an option has a value that is not accepted.
    """
    options = file.metadata.get("options", {})
    if not isinstance(options, Mapping):
        raise CheckpointError(f"{path} is damaged: its options are not names and values")
    described = {name: options[name] for name in names if name in options}
    try:
        return {name: vars(options_from({**DEFAULTS, **described}))[name] for name in described}
    except OptionError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def build_model(
    backend: Backend,
    config: RHNConfig,
    parameters: Mapping[str, NDArray],
    options: Options,
    precision: str,
    optimizer: Optimizer = PAPER_SGD,
    processes: Processes = ALONE,
) -> Model:
    """A model with the dtype, the device and the ways of saving time or memory that `options` ask for."""
    together = {} if processes == ALONE else {"processes": processes}  # a backend may support a single process only
    return backend.build(
        config,
        parameters,
        dtype=options.dtype,
        device=options.device,
        optimizer=optimizer,
        precision=precision,
        recompute=options.recompute,
        **together,
    )
