"""Random exploration: cases drawn at random and shrunk by hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from rhn.spec.config import ACTIVATIONS, RHNConfig
from rhn.spec.masks import DropRates
from rhn_conformance.cases.numbers import Description
from rhn_conformance.cases.synthetic import synthetic_case
from rhn_conformance.results import Verdict
from rhn_conformance.runner import Target, examine

UNBOUNDED = 10**9  # examples: in effect, without end


@st.composite
def configs(draw: st.DrawFn) -> RHNConfig:
    """Any architecture of small size."""
    tied = draw(st.booleans())
    return RHNConfig(
        vocab_size=draw(st.integers(2, 12)),
        hidden_size=draw(st.integers(1, 9)),
        recurrence_depth=draw(st.integers(1, 4)),
        num_layers=draw(st.integers(1, 3)),
        embedding_size=draw(st.none() | st.integers(1, 9)) if tied else draw(st.integers(1, 9)),
        tie_weights=tied,
        couple_gates=draw(st.booleans()),
        share_gate_masks=draw(st.booleans()),
        activation=draw(st.sampled_from(ACTIVATIONS)),
    )


def descriptions() -> st.SearchStrategy[Description]:
    """Any small case; its name varies too, and with it the random numbers."""
    rate = st.sampled_from((0.0, 0.25, 0.5, 0.8))
    return st.builds(
        Description,
        name=st.integers(0, 999).map("random-{}".format),
        clauses=st.just(("6.1",)),
        config=configs(),
        batch_size=st.integers(1, 4),
        length=st.integers(1, 6),
        rates=st.builds(DropRates, rate, rate, rate, rate, rate),
        time_masks=st.booleans(),
        reset_probability=st.sampled_from((0.0, 0.5)),
        given_state=st.booleans(),
        repeat_tokens=st.booleans(),
        weight_scale=st.sampled_from((0.04, 0.3, 1.0)),
        saturated=st.booleans(),
        weight_decay=st.sampled_from((0.0, 1e-3, 0.1)),
        max_grad_norm=st.sampled_from((0.1, 1.0, 100.0)),
    ).filter(lambda d: not (d.saturated and d.rates.drop_update))
    # An update mask may leave only what shut gates let through, a state of 1e-9, of which the reference itself
    # knows seven digits.


def explore(targets: Sequence[Target], examples: int | None = None, search_seed: int = 0) -> None:
    """Run random cases on every target, until `examples` are done or something fails.

    Args:
        targets: backends to test.
        examples: how many cases; None goes on until a failure or Ctrl-C.
        search_seed: another seed finds other cases.

    Raises:
        ValueError: a case fails; the message holds the smallest one found, and what is wrong with it.
    """

    @seed(search_seed)
    @settings(
        max_examples=UNBOUNDED if examples is None else examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(descriptions())
    def every_case_passes(description: Description) -> None:
        case = replace(synthetic_case(description), calibrated=False)
        for target in targets:
            failures = [r for r in examine(case, target).results if r.verdict is not Verdict.PASSED]
            if failures:
                raise ValueError("\n".join([repr(description), *map(str, failures)]))

    every_case_passes()
