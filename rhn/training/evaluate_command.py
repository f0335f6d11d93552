"""The command `evaluate`: how good is a checkpoint of any backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rhn.training.evaluation import score_full_streams
from rhn.training.opening import open_checkpoint


def evaluate_checkpoint(backend_name: str, options: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, float]:
    """Score a checkpoint on the validation and test part of its data, at batch 1; see `open_checkpoint`."""
    opened = open_checkpoint(backend_name, options, given)
    scores = score_full_streams(opened.model, opened.load_corpus(), opened.options["progress"])
    return {name: score.value for name, score in scores.items()}
