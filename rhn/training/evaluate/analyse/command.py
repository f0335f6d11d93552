"""The command `analyse`: how gates and states of a trained model behave (sections 4 and 6 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rhn.training.evaluate.analyse.gates import PERCENTILES, analyse, gate_chart, print_gates
from rhn.training.evaluate.analyse.jacobian import LayerJacobians, jacobian_chart, layer_jacobians
from rhn.training.evaluate.result import beside, write_result
from rhn.training.run.checkpoint import OpenedCheckpoint, open_checkpoint
from rhn.training.score import UNITS, in_units
from rhn.training.terminal.console import say, shown_progress
from rhn_datasets import Corpus


def analyse_checkpoint(backend_name: str, values: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """The command: print numbers about gates and Jacobians, and write them as JSON and pictures beside the checkpoint.

    The arguments are those of `open_checkpoint`.

    Raises:
        ValueError, OSError, ImportError: with one sentence for the user.
    """
    opened = open_checkpoint(backend_name, values, given)
    o, corpus = opened.options, opened.load_corpus()
    tokens = getattr(corpus, o.part)[: o.analyse_tokens + 1]
    _analyse_gates(opened, corpus, tokens)
    _analyse_jacobians(opened, corpus, tokens)


def _analyse_gates(opened: OpenedCheckpoint, corpus: Corpus, tokens: NDArray[np.integer]) -> None:
    o, n = opened.options, len(tokens) - 1
    passes = 2 + opened.model.config.num_layers * opened.model.config.recurrence_depth
    with shown_progress("gates", passes * n, show=o.progress) as bar:
        analysis = analyse(opened.model, tokens, corpus.level, bar.update)
    percentiles = np.percentile(analysis.state_norms, PERCENTILES, axis=1).T  # (N, percentiles)
    print_gates(analysis, percentiles, corpus.level, f"the first {n:,} tokens of {o.part}")
    figures = {
        "part": o.part,
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
        f"first {n:,} tokens of {o.part}": f"{UNITS[corpus.level]} {in_units(analysis.nats, corpus.level):.4g}",
        "mean transform gate, per layer by micro-step": _listed(analysis.activity, "{:.3f}"),
        f"{UNITS[corpus.level]} with one gate shut, likewise": _listed(
            np.vectorize(lambda nats: in_units(float(nats), corpus.level))(analysis.lesion_nats), "{:.4g}"
        ),
    }
    title = f"{corpus.name}, first {n:,} tokens of {o.part}"
    write_result(beside(str(o.checkpoint), "analysis"), shown, figures, gate_chart(analysis, title))


def _analyse_jacobians(opened: OpenedCheckpoint, corpus: Corpus, tokens: NDArray[np.integer]) -> None:
    o, n, config = opened.options, len(tokens) - 1, opened.model.config
    with shown_progress("Jacobians", 2 * n, show=o.progress) as bar:
        start, trained = (
            layer_jacobians(config, parameters, tokens, o.analyse_jacobians, bar.update)
            for parameters in (opened.plan.initial_parameters(config), opened.model.parameters())
        )
    rows = {"at the start": start, "trained": trained}
    shown = {}
    for name, layers in rows.items():
        for layer, jacobians in enumerate(layers):
            f = jacobians.time_step.figures()
            line = (
                f"spectral radius {f['spectral_radius_mean']:.2f} (at most {f['spectral_radius_max']:.2f}), "
                f"2-norm {f['norm_mean']:.2f}, "
                f"discs at {f['disc_centre_mean']:.2f} with radius {f['disc_radius_mean']:.2f}"
            )
            shown[f"Jacobian of a time step, layer {layer}, {name}"] = line
            say(f"layer {layer}, Jacobian of a time step, {name}: {line}")
    figures = {
        "part": o.part,
        "tokens": n,
        "times": len(trained[0].time_step.norms),
        **{name.replace(" ", "_"): [_figures(layer) for layer in layers] for name, layers in rows.items()},
    }
    title = f"Temporal Jacobian of layer {config.num_layers - 1}: eigenvalues and Gershgorin discs ({corpus.name})"
    picture = jacobian_chart(start[-1], trained[-1], title)
    write_result(beside(str(o.checkpoint), "jacobian"), shown, figures, picture)


def _figures(layer: LayerJacobians) -> dict[str, Any]:
    return {
        "micro_steps": [micro_step.figures() for micro_step in layer.micro_steps],
        "time_step": layer.time_step.figures(),
    }


def _listed(values: np.ndarray, form: str) -> str:
    """(layers, micro-steps) as text."""
    return "; ".join(", ".join(form.format(value) for value in layer) for layer in values)
