"""From the checkpoint of a run, of any backend, to a model and its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rhn.backend import Backend, Model, load_backend
from rhn.checkpoint import Checkpoint, CheckpointError, load_language_model
from rhn.processes import ALONE, Processes
from rhn.spec.config import RHNConfig
from rhn.spec.optimizers import PAPER_SGD, Optimizer
from rhn.text import one_line
from rhn.training.console import say
from rhn.training.options import DEFAULTS, OPTIONS, OptionError, Options, options_from
from rhn.training.plan import Plan
from rhn_datasets import Corpus, DataError, Vocabulary, load_corpus

# What a checkpoint may say of the run that wrote it: what describes its data and its model, and no place to write to.
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
        vocabulary: as many symbols as the configuration says.
        metadata: all that the file says.
    """

    checkpoint: Checkpoint
    config: RHNConfig
    vocabulary: Vocabulary
    metadata: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> TrainedModel:
        """Read the file at `path`; CheckpointError if it holds no such model."""
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
        backend: that the model was built in, not necessarily the one that wrote the checkpoint.
        model: with the checkpoint's parameters.
        vocabulary: of the model.
        plan: the options of this command line; what they do not say of data and model, the checkpoint does.
        names_data: whether one of the two says which data.
    """

    backend: Backend
    model: Model
    vocabulary: Vocabulary
    plan: Plan
    names_data: bool

    @property
    def options(self) -> Options:
        """Of the plan."""
        return self.plan.options

    def load_corpus(self) -> Corpus:
        """The data of the options.

        Raises:
            OptionError: nothing says which data.
            CheckpointError: their vocabulary is not the model's.
        """
        o = self.options
        if not self.names_data:
            raise OptionError(f"dataset=None is not accepted: {o.checkpoint} does not say on which data it was trained")
        corpus = load_corpus(o.dataset, o.data_path, level=o.level)
        if corpus.vocabulary != self.vocabulary:
            raise CheckpointError(
                f"checkpoint={o.checkpoint} was trained on another vocabulary ({len(self.vocabulary)} symbols) than"
                f" that of dataset={o.dataset!r} ({len(corpus.vocabulary)} symbols)"
            )
        return corpus


def open_checkpoint(backend_name: str, values: Mapping[str, Any], given: Mapping[str, Any]) -> OpenedCheckpoint:
    """Build the model of the option `checkpoint`.

    Args:
        backend_name: to build it in.
        values: of all options of this command line.
        given: those that the user gave; what the others say of data and model comes from the checkpoint.

    Raises:
        OptionError: no checkpoint is named.
        CheckpointError: the file is not a checkpoint of a language model.
    """
    Plan.from_options(values)  # refuses what is impossible before anything is loaded
    if values["checkpoint"] is None:
        raise OptionError("checkpoint=None is not accepted: expected the file of a checkpoint")
    path = values["checkpoint"]
    file = TrainedModel.read(path)
    described = _described(path, file)
    plan = Plan.from_options({**values, **described, **given})
    backend = load_backend(backend_name)
    device = plan.options.device or "cpu"
    model = build_model(
        backend, file.config, file.checkpoint.parameters, plan.options, plan.precision(training=False, device=device)
    )
    say(f"{path}: written by {one_line(str(file.metadata.get('backend')))}, opened by {backend_name}")
    return OpenedCheckpoint(backend, model, file.vocabulary, plan, "dataset" in {**described, **given})


def _described(path: str, file: TrainedModel) -> dict[str, Any]:
    """What the checkpoint says of its data and model, by option."""
    options = file.metadata.get("options", {})
    if not isinstance(options, Mapping):
        raise CheckpointError(f"{path} is damaged: its options are no names and values")
    described = {name: options[name] for name in _FROM_CHECKPOINT if name in options}
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
    """A model that computes as `options` say: in which dtype, where, and what it may do to be faster or smaller."""
    together = {} if processes == ALONE else {"processes": processes}  # a backend need not know of several
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
