"""The command `evaluate_mc`: how good is the mean prediction of a checkpoint over its dropout masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rhn.spec.masks import DropRates
from rhn.training.evaluate.monte_carlo import (
    LEGACY_LARGEST_PERPLEXITY,
    MonteCarloAverage,
    MonteCarloOptions,
    add_samples,
    identity_of,
)
from rhn.training.evaluate.result import beside, write_result
from rhn.training.evaluate.stream import evaluate, progress_bar
from rhn.training.evaluation_charts import monte_carlo_chart
from rhn.training.options import OptionError, pick
from rhn.training.run.checkpoint import open_checkpoint
from rhn.training.score import UNITS, in_units


def evaluate_mc(backend_name: str, options: Mapping[str, Any], given: Mapping[str, Any]) -> float:
    """Score a checkpoint by Monte Carlo dropout at batch 1, going on from the samples in `mc_file`.

    Every sample has one set of masks for the whole stream, drawn with the rates of the run, and is kept. Prints the
    score beside the static one and writes figures and curve (score against number of samples) beside `mc_file`. The
    arguments are those of `open_checkpoint`.

    Raises:
        ValueError, OSError, ImportError: with one sentence for the user.
    """
    pick(MonteCarloOptions, options)  # refuses what is impossible before anything is loaded
    opened = open_checkpoint(backend_name, options, given)
    mc = pick(MonteCarloOptions, opened.options)
    rates, seed = pick(DropRates, opened.options), opened.options["seed"]
    if not any(rates):
        raise OptionError("drop rates of 0 are not accepted: the run has no dropout, so there is nothing to sample")
    corpus = opened.load_corpus()
    level, tokens = corpus.level, getattr(corpus, mc.part)

    label = f"{'legacy-mc' if mc.legacy_mc else 'mc'}-{mc.part}"
    file = Path(mc.mc_file or beside(opened.options["checkpoint"], f"{label}.safetensors"))
    identity = identity_of(opened.model, tokens, rates, seed, mc.legacy_mc)
    if file.exists():
        average = MonteCarloAverage.load(file, identity)
        print(f"going on from the {average.kept} samples in {file}")
    else:
        average = MonteCarloAverage.empty(len(tokens) - 1, mc.legacy_mc)

    passes_to_go = max(mc.mc_samples - average.kept, 0)
    with progress_bar("samples", passes_to_go * (len(tokens) - 1), opened.options["progress"]) as bar:

        def after_batch() -> None:
            average.save(file, identity)
            if average.kept:
                value = in_units(average.running_nats[-1], level)
                bar.set_postfix_str(f"{UNITS[level]} {value:.4g} of {average.kept} samples")

        add_samples(opened.model, tokens, average, mc, rates, seed, after_batch=after_batch, progress=bar.update)
    score, static = average.score(level), evaluate(opened.model, tokens, level)
    shown = {
        f"{mc.part} (batch 1, no dropout)": str(static),
        f"{mc.part} (batch 1, {_description(average)})": str(score),
    }
    for name, value in shown.items():
        print(f"  {name}: {value}")
    figures = {
        "metric": UNITS[level],
        "part": mc.part,
        "legacy_mc": mc.legacy_mc,
        "samples": average.kept,
        "passes": len(average.pass_nats),
        "drop_rates": rates._asdict(),
        "seed": seed,
        "score": {**asdict(score), "value": score.value},
        "static_score": {**asdict(static), "value": static.value},
        "value_of_each_pass": [in_units(nats, level) for nats in average.pass_nats],
        "value_after_each_sample": [in_units(nats, level) for nats in average.running_nats],
    }
    chart = monte_carlo_chart(average.running_nats, static.nats, level, file.stem)
    write_result(file.with_suffix(""), shown, figures, chart)
    return score.value


def _description(average: MonteCarloAverage) -> str:
    if not average.legacy:
        return f"MC dropout, mean of {average.kept} samples, all kept"
    return (
        f"MC dropout as the authors' script samples, not comparable: one draw drops all words or none,"
        f" {average.kept} of {len(average.pass_nats)} passes kept, those with a perplexity below"
        f" {LEGACY_LARGEST_PERPLEXITY:g} on this very text"
    )
