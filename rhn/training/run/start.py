"""Where a run starts: from the beginning, or from its newest checkpoint, after checking that the checkpoint fits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from rhn.checkpoint import Checkpoint, CheckpointError
from rhn.spec.config import RHNConfig
from rhn.training.options.plan import Plan
from rhn.training.run.checkpoint import TrainedModel
from rhn.training.run.folder import RunFolder
from rhn.training.run.progress import Progress
from rhn_datasets import Corpus, windows


@dataclass(frozen=True)
class Start:
    """Progress and arrays from which a run continues."""

    progress: Progress = field(default_factory=Progress)
    checkpoint: Checkpoint = field(default_factory=lambda: Checkpoint({}))

    @classmethod
    def read(cls, folder: RunFolder, config: RHNConfig, corpus: Corpus, plan: Plan) -> Start:
        """The start of a resumed run. A run that ended before its first checkpoint starts from the beginning.

        Raises:
            CheckpointError: the checkpoint is damaged, or its architecture or data are not these.
        """
        file = folder.last
        if not file.exists():
            return cls()
        try:
            saved = TrainedModel.read(file)
            progress = progress_of(saved, file)
        except CheckpointError as error:
            best = f"; {folder.best} is there" if folder.best.exists() else ""
            raise CheckpointError(f"{error}; remove {file} to start the run again{best}") from error
        if saved.config != config:
            raise CheckpointError(f"{file} has another architecture than the options of the run")
        if saved.vocabulary != corpus.vocabulary:
            raise CheckpointError(f"{file} was trained on other symbols than the data now have")
        if saved.metadata.get("data", digest_of(corpus)) != digest_of(corpus):  # older files do not say
            raise CheckpointError(f"{file} was trained on other data: the files have changed since")
        _check_place(progress, saved.checkpoint, corpus, plan, file)
        return cls(progress, saved.checkpoint)


def progress_of(saved: TrainedModel, file: Path) -> Progress:
    """The progress of the run that wrote `file`; CheckpointError if the file does not hold it."""
    try:
        return Progress.from_json(saved.metadata.get("progress"))
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error


def digest_of(corpus: Corpus) -> str:
    """SHA-256 over the tokens of all parts."""
    digest = hashlib.sha256()
    for tokens in (corpus.train, corpus.valid, corpus.test):
        digest.update(len(tokens).to_bytes(8, "little"))
        digest.update(tokens.tobytes())
    return digest.hexdigest()


def _check_place(progress: Progress, checkpoint: Checkpoint, corpus: Corpus, plan: Plan, file: Path) -> None:
    """Raise CheckpointError unless the progress and the carried state are possible with these data and options."""
    o = plan.options
    shortest = o.bptt_length if o.bptt_jitter is None else 1  # of its windows, at the least
    in_epoch = len(windows(corpus.train, o.batch_size, shortest, drop_last=True))
    rows = [len(s) for s in checkpoint.state]
    epochs = [row["epoch"] for row in progress.history]
    if o.evaluate_steps is None and epochs != list(range(1, progress.epoch + 1)):
        raise CheckpointError(f"{file} does not fit its run: {len(epochs)} checks for {progress.epoch} epochs")
    if progress.window > in_epoch or (progress.window and not rows) or any(count != o.batch_size for count in rows):
        raise CheckpointError(
            f"{file} does not fit its run: window {progress.window} of {in_epoch}, with a state of {rows} rows for"
            f" batch_size={o.batch_size}"
        )
