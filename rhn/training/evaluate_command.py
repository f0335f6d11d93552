"""The command `evaluate`: how good is a checkpoint of any backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rhn.training.evaluate.stream import EvaluationOptions, score_streams
from rhn.training.options import pick
from rhn.training.run.checkpoint import open_checkpoint


def evaluate_checkpoint(backend_name: str, options: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, float]:
    """Score a checkpoint on the validation and test part of its data; see `EvaluationOptions` and `open_checkpoint`."""
    pick(EvaluationOptions, options)  # refuses what is impossible before anything is loaded
    opened = open_checkpoint(backend_name, options, given)
    evaluation = pick(EvaluationOptions, opened.options)
    scores = score_streams(opened.model, opened.load_corpus(), opened.options["progress"], evaluation)
    return {name: score.value for name, score in scores.items()}
