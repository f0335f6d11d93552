"""The command `evaluate_dynamic`: how good is a checkpoint that goes on learning from what it is scored on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rhn.training.evaluate.dynamic import (
    DynamicOptions,
    evaluate_dynamic_rms,
    evaluate_dynamic_sgd,
    gradient_roots,
)
from rhn.training.evaluate.result import beside, write_result
from rhn.training.evaluate.stream import evaluate, progress_bar
from rhn.training.options import pick
from rhn.training.run.checkpoint import open_checkpoint
from rhn.training.score import UNITS


def evaluate_dynamic(backend_name: str, options: Mapping[str, Any], given: Mapping[str, Any]) -> float:
    """Score a checkpoint by dynamic evaluation at batch 1, and print and write that beside the static score.

    The arguments are those of `open_checkpoint`.

    Raises:
        ValueError, OSError, ImportError: with one sentence for the user.
    """
    pick(DynamicOptions, options)  # refuses what is impossible before anything is loaded
    opened = open_checkpoint(backend_name, options, given)
    dynamic = pick(DynamicOptions, opened.options)
    corpus = opened.load_corpus()
    model, level, tokens, show = opened.model, corpus.level, getattr(corpus, dynamic.part), opened.options["progress"]

    with progress_bar("static", len(tokens) - 1, show) as bar:
        static = evaluate(model, tokens, level, progress=bar.update)
    print(f"  {dynamic.part} (static, batch 1): {static}")
    rule = f"{dynamic.dynamic_rule}, rate {dynamic.rate:g}, windows of {dynamic.dynamic_length}"
    if dynamic.dynamic_rule == "sgd":
        with progress_bar("dynamic", len(tokens) - 1, show) as bar:
            score = evaluate_dynamic_sgd(model, tokens, level, dynamic, bar.update)
    else:
        rule += f", decay {dynamic.dynamic_decay:g}"
        with progress_bar("statistics", len(corpus.train), show) as bar:
            roots = gradient_roots(model, corpus.train, dynamic, bar.update)
        with progress_bar("dynamic", len(tokens) - 1, show) as bar:
            score = evaluate_dynamic_rms(model, tokens, level, dynamic, roots, bar.update)
    how = f"{dynamic.part} (dynamic evaluation, not comparable with static figures; {rule})"
    print(f"  {how}: {score}")
    figures = {
        "metric": UNITS[level],
        "part": dynamic.part,
        "options": asdict(dynamic),
        "score": {**asdict(score), "value": score.value},
        "static_score": {**asdict(static), "value": static.value},
    }
    shown = {f"{dynamic.part} (static, batch 1)": str(static), how: str(score)}
    write_result(beside(opened.options["checkpoint"], f"dynamic-{dynamic.part}"), shown, figures, None)
    return score.value
