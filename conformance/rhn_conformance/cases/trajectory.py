"""One hundred training steps on real text: errors that a single step would hide add up."""

from __future__ import annotations

from functools import cache
from itertools import islice

import rhn
from rhn.reference_backend import ReferenceBackend
from rhn_conformance.case import Answers, Case, Inputs, Step, Window
from rhn_conformance.cases.numbers import representable
from rhn_conformance.checks import TRAJECTORY
from rhn_datasets import load_corpus, windows

NUM_STEPS = 100
_BATCH_SIZE, _LENGTH = 4, 10
_RATES = rhn.DropRates(drop_embedding=0.1, drop_input=0.3, drop_state=0.1, drop_output=0.3)
_SEED = 1


def trajectory_case() -> Case:
    """All masks, clipping and weight decay on, state carried over; in float64, where no difference is excusable."""
    return Case(
        name="trajectory",
        clauses=("4.6", "5.5"),
        checks=(TRAJECTORY,),
        inputs=trajectory_inputs,
        expected=_answers,
        dtypes=("float64",),
    )


@cache
def trajectory_inputs() -> Inputs:
    """The first windows of the Python language reference, which every CPython carries."""
    corpus = load_corpus("pydoc")
    config = rhn.RHNConfig(vocab_size=len(corpus.vocabulary), hidden_size=16, recurrence_depth=3)
    steps = []
    text = windows(corpus.train, _BATCH_SIZE, _LENGTH, drop_last=True)
    for number, (tokens, targets) in enumerate(islice(text, NUM_STEPS)):
        masks = representable(rhn.sample_masks(config, tokens, _RATES, _SEED, step=number))
        steps.append(Step(Window(tokens, targets, masks), learning_rate=0.2, weight_decay=1e-4, max_grad_norm=10.0))
    return Inputs(
        config=config,
        parameters=rhn.initial_parameters(config, _SEED, init_scale=0.2),
        state=None,
        double_window=steps[0].window,
        steps=tuple(steps),
    )


@cache
def _answers() -> Answers:
    inputs = trajectory_inputs()
    model = ReferenceBackend().build(inputs.config, inputs.parameters, "float64")
    return {TRAJECTORY.name: TRAJECTORY.ask(model, inputs)}
