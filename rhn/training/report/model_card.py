"""The card of an exported model: a page of Markdown, with YAML in front, as the Hugging Face Hub reads it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from rhn.checkpoint import CheckpointError
from rhn.markdown import table
from rhn.spec.parameters import parameter_count
from rhn.text import one_line
from rhn.training.evaluate.generate import default_prompt
from rhn.training.options import DEFAULTS
from rhn.training.report.render import render
from rhn.training.run.checkpoint import TrainedModel
from rhn.training.run.record import RunRecord, read_run
from rhn.training.run.start import progress_of
from rhn.training.score import Score
from rhn.training.terminal.read_words import as_words

_TOKEN = {"word": "word", "char": "character", "byte": "byte"}
_PORTS = ("torch", "tf", "jax")  # that have a command line


def model_card(
    name: str,
    checkpoint: Path,
    model: TrainedModel,
    options: Mapping[str, Any],
    *,
    stored_dtype: str,
    license: str | None,
) -> bytes:
    """The page, UTF-8.

    Args:
        name: name of the model.
        checkpoint: its file. The card also shows the records of the run folder around it.
        model: as it is in the file.
        options: the options of its training, without files and folders of the machine.
        stored_dtype: dtype of the exported parameters.
        license: what others may do with them; None: not stated.

    Raises:
        RunRecordError: the run folder is damaged.
    """
    run = read_run(checkpoint.parent) if (checkpoint.parent / "options.json").is_file() else None
    backend = model.metadata.get("backend")
    scores = _scores(run, checkpoint, model)
    front_matter = {
        "library_name": "recurrent-highway-networks",
        "pipeline_tag": "text-generation",
        "tags": ["recurrent-highway-network", "language-model", "pytorch", "tensorflow", "jax"],
        **({} if license is None else {"license": one_line(license)}),
    }
    return render(
        "card.md.j2",
        front_matter=Markup(yaml.safe_dump(front_matter, sort_keys=False, allow_unicode=True)),
        name=name,
        token=_TOKEN[model.vocabulary.level],
        types=len(model.vocabulary),
        dataset=None if options["dataset"] == "text" else options["dataset"],
        parameters=parameter_count(model.config),
        stored_dtype=stored_dtype,
        is_rounded=stored_dtype != _dtype(model),
        scores=_table(["part of the data", "score"], scores),
        prompt=json.dumps(default_prompt(model.vocabulary), ensure_ascii=False),
        architecture=_table(["architecture", "value"], model.config.to_dict()),
        program=f"rhn_{backend if backend in _PORTS else _PORTS[0]}.train",
        training=shlex.join(as_words({name: value for name, value in options.items() if value != DEFAULTS[name]})),
        changes=_changes(run),
        made_with=_table(["made with", "value"], {} if run is None else run.environment),
        sample="" if run is None or not scores else run.sample.rstrip("\n"),
        license=license,
    )


def _dtype(model: TrainedModel) -> str:
    return model.checkpoint.parameters["embedding"].dtype.name


def _scores(run: RunRecord | None, checkpoint: Path, model: TrainedModel) -> dict[str, Any]:
    """What the run's final figures, and the files beside the checkpoint, say of this very checkpoint."""
    if run is None or not run.finished or run.level is None or not _is_best(run, checkpoint, model):
        return {}
    figures = {part: run.summary[part] for part in ("test", "valid")}
    scores = {
        f"{part} (batch 1)": str(Score(score["nats"], score["standard_error"], score["tokens"], run.level))
        for part, score in figures.items()
    }
    for label, result in run.results.items():
        if label.startswith(f"{checkpoint.stem}."):
            scores |= result.shown
    return scores


def _is_best(run: RunRecord, checkpoint: Path, model: TrainedModel) -> bool:
    """Whether the final figures belong to this file: the run may have found a better checkpoint since."""
    try:
        history = progress_of(model, checkpoint).history
    except CheckpointError:
        return False
    return checkpoint.stem == "best" and bool(history) and history[-1]["epoch"] == run.summary.get("best_epoch")


def _changes(run: RunRecord | None) -> Markup | str:
    if run is None or not run.changes:
        return ""
    names = ["option", "step", "before", "after"]
    return Markup(table(names, [[str(change[name]) for name in names] for change in run.changes]))


def _table(head: list[str], rows: Mapping[str, Any]) -> Markup | str:
    """A table of two columns; nothing if it has no rows."""
    return Markup(table(head, [[name, str(value)] for name, value in rows.items()])) if rows else ""
