"""From options, and from a checkpoint file of any backend, to a model and its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from rhn.backend import Backend, Model, load_backend
from rhn.checkpoint import CheckpointError, load_checkpoint
from rhn.spec.config import RHNConfig
from rhn.spec.optimizers import PAPER_SGD, Optimizer
from rhn.training.options import OptionError
from rhn.training.run.folder import split_checkpoint
from rhn_datasets import Corpus, Vocabulary, load_corpus


@dataclass(frozen=True)
class OpenedCheckpoint:
    """A checkpoint ready for use.

    Attributes:
        backend: that the model was built in, not necessarily the one that wrote the checkpoint.
        model: with the checkpoint's parameters.
        vocabulary: of the model.
        options: of the run that wrote the checkpoint, replaced by those of this command line.
    """

    backend: Backend
    model: Model
    vocabulary: Vocabulary
    options: dict[str, Any]

    def load_corpus(self) -> Corpus:
        """The data of `options`; CheckpointError if their vocabulary is not the model's."""
        o = self.options
        corpus = load_corpus(o["dataset"], o["data_path"], level=o["level"])
        if corpus.vocabulary != self.vocabulary:
            raise CheckpointError(
                f"checkpoint={o['checkpoint']} was trained on another vocabulary ({len(self.vocabulary)} symbols) than"
                f" that of dataset={o['dataset']!r} ({len(corpus.vocabulary)} symbols)"
            )
        return corpus


def open_checkpoint(backend_name: str, options: Mapping[str, Any], given: Mapping[str, Any]) -> OpenedCheckpoint:
    """Build the model of `options["checkpoint"]`.

    Args:
        backend_name: to build it in.
        options: of this command line, with all defaults.
        given: those of them that the user gave; the others come from the checkpoint's run.

    Raises:
        OptionError: no checkpoint is named.
        CheckpointError: the file is not a checkpoint of a language model.
    """
    if options["checkpoint"] is None:
        raise OptionError("checkpoint=None is not accepted: this command needs the file of a checkpoint")
    tensors, metadata = load_checkpoint(options["checkpoint"])
    merged = {**options, **metadata.get("options", {}), **given}
    try:
        config = RHNConfig(**metadata["config"])
        vocabulary = Vocabulary.from_json(metadata["vocabulary"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{options['checkpoint']} holds no language model of this collection") from error
    backend = load_backend(backend_name)
    parameters = split_checkpoint(tensors).parameters
    model = build_model(backend, config, parameters, merged)
    print(f"{options['checkpoint']}: written by {metadata.get('backend')}, opened by {backend_name}")
    return OpenedCheckpoint(backend, model, vocabulary, merged)


def build_model(
    backend: Backend,
    config: RHNConfig,
    parameters: Mapping[str, NDArray],
    options: Mapping[str, Any],
    optimizer: Optimizer = PAPER_SGD,
) -> Model:
    """A model that computes as `options` say: in which dtype, where, and what it may do to be faster or smaller."""
    return backend.build(
        config,
        parameters,
        dtype=options["dtype"],
        device=options["device"],
        optimizer=optimizer,
        precision=options["precision"] or "float32",
        recompute=options["recompute"],
    )
