"""The command `analyse`: what the gates of a checkpoint do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rhn.training.evaluate.gates import AnalysisOptions, GateAnalysis, analyse
from rhn.training.evaluate.result import beside, write_result
from rhn.training.evaluate.stream import progress_bar
from rhn.training.evaluation_charts import gate_chart
from rhn.training.options import pick
from rhn.training.run.checkpoint import open_checkpoint
from rhn.training.score import UNITS, in_units

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)  # of the state norms


def analyse_checkpoint(backend_name: str, options: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Print a table of gates, lesions and state norms of a checkpoint, and write them as JSON and picture beside it.

    The arguments are those of `open_checkpoint`.

    Raises:
        ValueError, OSError, ImportError: with one sentence for the user.
    """
    pick(AnalysisOptions, options)  # refuses what is impossible before anything is loaded
    opened = open_checkpoint(backend_name, options, given)
    chosen = pick(AnalysisOptions, opened.options)
    corpus = opened.load_corpus()
    tokens = getattr(corpus, chosen.part)[: chosen.analyse_tokens + 1]
    n = len(tokens) - 1
    passes = 2 + opened.model.config.num_layers * opened.model.config.recurrence_depth
    with progress_bar("analyse", passes * n, opened.options["progress"]) as bar:
        analysis = analyse(opened.model, tokens, corpus.level, bar.update)
    percentiles = np.percentile(analysis.state_norms, PERCENTILES, axis=1).T  # (N, percentiles)
    _print_table(analysis, percentiles, corpus.level, f"the first {n:,} tokens of {chosen.part}")
    figures = {
        "part": chosen.part,
        "tokens": n,
        "metric": UNITS[corpus.level],
        "value": in_units(analysis.nats, corpus.level),
        "nats": analysis.nats,
        "transform_gate_mean": analysis.activity.tolist(),
        "transform_gate_std_over_units": analysis.activity_std.tolist(),
        "nats_with_gate_shut": analysis.lesion_nats.tolist(),
        "state_norm_percentiles": [dict(zip(map(str, PERCENTILES), row.tolist(), strict=True)) for row in percentiles],
    }
    shown = {
        f"first {n:,} tokens of {chosen.part}": f"{UNITS[corpus.level]} {in_units(analysis.nats, corpus.level):.4g}",
        "mean transform gate, per layer by micro-step": _listed(analysis.activity, "{:.3f}"),
        f"{UNITS[corpus.level]} with one gate shut, likewise": _listed(
            np.vectorize(lambda nats: in_units(float(nats), corpus.level))(analysis.lesion_nats), "{:.4g}"
        ),
    }
    title = f"{corpus.name}, first {n:,} tokens of {chosen.part}"
    write_result(beside(opened.options["checkpoint"], "analysis"), shown, figures, gate_chart(analysis, title))


def _listed(values: np.ndarray, form: str) -> str:
    """(layers, micro-steps) as text."""
    return "; ".join(", ".join(form.format(value) for value in layer) for layer in values)


def _print_table(analysis: GateAnalysis, percentiles: np.ndarray, level: str, stream: str) -> None:
    print(f"{stream}: {UNITS[level]} {in_units(analysis.nats, level):.4g}")
    print(f"layer  micro-step  mean transform gate (± over units)  {UNITS[level]} with it shut")
    for layer, micro_step in np.ndindex(analysis.activity.shape):
        mean, spread = analysis.activity[layer, micro_step], analysis.activity_std[layer, micro_step]
        shut = in_units(float(analysis.lesion_nats[layer, micro_step]), level)
        print(f"{layer:5}  {micro_step:10}  {mean:19.4f} ± {spread:<12.4f}  {shut:.4g}")
    for layer, row in enumerate(percentiles):
        values = ", ".join(f"{percent}% {norm:.3g}" for percent, norm in zip(PERCENTILES, row, strict=True))
        print(f"layer {layer}, norm of the state after a time step, percentiles: {values}")
