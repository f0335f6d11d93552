"""The cases: which model, which window, which options, and which clauses of SPEC.md are tested by them.

Each is a description; `numbers.make_inputs` turns it into numbers. The cases go from simple to composite, and each
names the clauses that it is the first to exercise: read the first failure of a backend, and you read the clause that
it breaks. Cases that differ in numbers only have the same sizes, so that a backend that compiles need not do so again.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

from rhn.reference_backend import ReferenceBackend
from rhn.spec.config import RHNConfig
from rhn.spec.masks import DropRates
from rhn.spec.optimizers import Optimizer
from rhn_conformance.case import DTYPES, Answers, Case, Check
from rhn_conformance.cases.covering import pairwise
from rhn_conformance.cases.numbers import Description, make_inputs
from rhn_conformance.checks import checks_of

ALL_MASKS = DropRates(drop_embedding=0.3, drop_input=0.4, drop_state=0.3, drop_output=0.5)
CLIPPED = 0.5  # every case has a larger gradient norm, and a smaller one than `Description.max_grad_norm`
DECAY = 0.05  # large enough for a mistake to show


def _config(**options: Any) -> RHNConfig:
    """A small configuration: all sizes differ, and nothing optional is switched on."""
    plain: dict[str, Any] = {
        "vocab_size": 11,
        "hidden_size": 6,
        "recurrence_depth": 2,
        "embedding_size": 4,
        "tie_weights": False,
    }
    return RHNConfig(**{**plain, **options})


def _tied(**options: Any) -> RHNConfig:
    return _config(embedding_size=None, tie_weights=True, **options)


def _growing_cases() -> list[Description]:
    """From a single micro-step to whole windows, then one option at a time."""
    shortest = Description(
        "shortest", ("1.2", "2.1", "2.2", "2.4", "2.5", "2.8"), _config(recurrence_depth=1), batch_size=1, length=1
    )
    window = Description("window", ("2.2", "5.1"), _config(), batch_size=1)
    plain = Description("plain", ("3.3", "5.1"), _config())
    with_all_masks = replace(plain, rates=ALL_MASKS, given_state=True)
    return [
        shortest,
        replace(shortest, name="initial-state", clauses=("3.1",), given_state=True),
        replace(shortest, name="micro-steps", clauses=("1.3", "2.2", "2.3"), config=_config(), given_state=True),
        window,
        plain,
        replace(plain, name="batch-after-state", clauses=("3.1",), given_state=True),
        replace(plain, name="depth-3", clauses=("2.2", "2.3"), config=_config(recurrence_depth=3)),
        replace(plain, name="repeated-tokens", clauses=("5.3",), repeat_tokens=True),
        replace(plain, name="embedding-wider", clauses=("1.1",), config=_config(embedding_size=9)),
        replace(plain, name="tied", clauses=("2.9", "5.3"), config=_tied()),
        replace(plain, name="uncoupled", clauses=("2.6",), config=_config(couple_gates=False)),
        replace(plain, name="sigmoid", clauses=("1.1", "2.4"), config=_config(activation="sigmoid")),
        replace(plain, name="relu", clauses=("1.1", "2.4"), config=_config(activation="relu")),
        replace(plain, name="two-layers", clauses=("2.7",), config=_config(num_layers=2)),
        replace(plain, name="three-layers", clauses=("2.7",), config=_tied(num_layers=3, recurrence_depth=1)),
        replace(
            plain,
            name="mask-embedding",
            clauses=("4.1", "4.2"),
            rates=DropRates(drop_embedding=0.5),
            repeat_tokens=True,
        ),
        replace(plain, name="mask-input", clauses=("4.1", "4.3", "4.4"), rates=DropRates(drop_input=0.5)),
        replace(plain, name="mask-state", clauses=("2.4", "4.3", "4.4"), rates=DropRates(drop_state=0.5)),
        replace(plain, name="mask-output", clauses=("4.5",), rates=DropRates(drop_output=0.5)),
        replace(with_all_masks, name="masks-shared", clauses=("4.3", "4.4", "4.6")),
        replace(
            with_all_masks,
            name="masks-separate",
            clauses=("4.4",),
            config=_config(share_gate_masks=False),
        ),
        replace(
            with_all_masks,
            name="masks-separate-uncoupled",
            clauses=("2.6", "4.4"),
            config=_config(share_gate_masks=False, couple_gates=False),
        ),
        replace(
            with_all_masks,
            name="masks-shared-uncoupled",
            clauses=("2.6", "4.4"),
            config=_config(couple_gates=False),
        ),
        replace(with_all_masks, name="masks-two-layers", clauses=("2.7", "4.3"), config=_config(num_layers=2)),
        replace(plain, name="weight-decay", clauses=("5.2",), weight_decay=DECAY),
        replace(plain, name="weight-decay-tied", clauses=("2.9", "5.2"), config=_tied(), weight_decay=DECAY),
        replace(plain, name="clipping", clauses=("5.4",), max_grad_norm=CLIPPED),
        replace(
            plain,
            name="clipping-with-decay",
            clauses=("5.2", "5.3", "5.4"),
            config=_tied(),
            repeat_tokens=True,
            weight_decay=1.0,
            max_grad_norm=CLIPPED,
        ),
        *_optimizer_cases(plain),
        replace(
            with_all_masks,
            name="length-and-activation-regularization",
            clauses=("3.5", "5.11"),
            config=_config(num_layers=2),
            length=4,
            extras=(
                ("activation_regularization", 2.0),
                ("temporal_activation_regularization", 1.5),
                ("length", 2),
            ),
        ),
        replace(with_all_masks, name="recompute", clauses=("6.3",), config=_tied(), recompute=True),
        replace(
            with_all_masks,
            name="recompute-uncoupled",
            clauses=("6.3",),
            config=_config(share_gate_masks=False, couple_gates=False, num_layers=2),
            recompute=True,
        ),
        *_cases_beyond_the_paper(plain, with_all_masks),
    ]


def _cases_beyond_the_paper(plain: Description, with_all_masks: Description) -> list[Description]:
    """The update mask alone; then everything at once, in few cases, because each is a program to compile."""
    everything = replace(
        with_all_masks,
        name="beyond-the-paper",
        clauses=("1.1", "2.10", "4.9", "4.10", "4.11"),
        config=_config(tie_weights=True, share_gate_masks=False),
        rates=ALL_MASKS._replace(drop_update=0.4),
        time_masks=True,
        reset_probability=0.5,
        weight_decay=DECAY,
    )
    wider = _config(
        embedding_size=9,
        tie_weights=True,
        couple_gates=False,
        num_layers=2,
        share_gate_masks=False,
        activation="sigmoid",
    )
    return [
        replace(plain, name="mask-update", clauses=("4.9",), rates=DropRates(drop_update=0.5)),
        everything,
        replace(
            everything,
            name="beyond-the-paper-recompute",
            clauses=("1.1", "2.10", "4.9", "6.3"),
            config=wider,
            recompute=True,
        ),
    ]


def _optimizer_cases(plain: Description) -> list[Description]:
    adam = replace(plain, optimizer=Optimizer("adam"), learning_rate=0.01, weight_decay=DECAY)
    return [
        replace(adam, name="adam", clauses=("5.7",), max_grad_norm=CLIPPED),
        replace(
            plain,
            name="decoupled-decay",
            clauses=("5.8",),
            optimizer=Optimizer("sgd", decoupled_weight_decay=True),
            weight_decay=DECAY,
        ),
        replace(
            adam,
            name="adam-decoupled-decay",
            clauses=("5.7", "5.8"),
            optimizer=Optimizer("adam", decoupled_weight_decay=True),
        ),
        replace(plain, name="averaging", clauses=("5.9",), averaging=True, num_steps=3),
        replace(
            plain,
            name="momentum",
            clauses=("5.4", "5.10"),
            optimizer=Optimizer("sgd", decoupled_weight_decay=True, momentum=0.8, max_grad_value=0.05),
            weight_decay=DECAY,
            max_grad_norm=CLIPPED,
            averaging=True,
            num_steps=3,
            dtypes=("float64",),
        ),
        replace(
            adam,
            name="adam-clipped-by-value",
            clauses=("5.4", "5.7"),
            optimizer=Optimizer("adam", epsilon=0.01, max_grad_value=0.05),  # large: else only signs would count
            dtypes=("float64",),
        ),
    ]


# Every value of every option. Tying and embedding width are one factor, because they depend on each other.
FACTORS: dict[str, tuple[Any, ...]] = {
    "recurrence_depth": (1, 2, 3),
    "embedding": ("tied", "as wide", "narrower"),
    "activation": ("tanh", "sigmoid", "relu"),
    "num_layers": (1, 2),
    "couple_gates": (True, False),
    "share_gate_masks": (True, False),
    "drop_embedding": (0.0, 0.5),
    "drop_input": (0.0, 0.4),
    "drop_state": (0.0, 0.4),
    "drop_output": (0.0, 0.5),
    "given_state": (False, True),
    "batch_size": (3, 1),
    "length": (3, 1),
    "repeat_tokens": (False, True),
    "weight_decay": (0.0, DECAY),
    "max_grad_norm": (100.0, CLIPPED),
    "dtype": DTYPES,
}


def _pair_cases() -> list[Description]:
    """Every pair of option values, in as few cases as a covering array needs."""
    return [_pair_case(f"pairs-{number:02d}", row) for number, row in enumerate(pairwise(FACTORS), start=1)]


def _pair_case(name: str, row: dict[str, Any]) -> Description:
    options = dict(row)
    architecture = {
        key: options.pop(key)
        for key in ("recurrence_depth", "activation", "num_layers", "couple_gates", "share_gate_masks")
    }
    embedding = options.pop("embedding")
    rates = DropRates(**{rate: options.pop(rate) for rate in DropRates._fields if rate in options})
    config = (
        _tied(**architecture)
        if embedding == "tied"
        else _config(embedding_size=6 if embedding == "as wide" else 4, **architecture)
    )
    return Description(name, ("1.1",), config, rates=rates, dtypes=(options.pop("dtype"),), **options)


def _extreme_cases() -> list[Description]:
    """Cases in which careless arithmetic overflows, cancels or drifts."""
    plain = Description("", ("6.2",), _config())
    return [
        replace(plain, name="smallest", clauses=("1.1",), config=_smallest(), batch_size=1, length=1),
        replace(plain, name="saturated-gates", saturated=True, given_state=True),
        replace(
            plain,
            name="saturated-gates-uncoupled",
            saturated=True,
            given_state=True,
            config=_config(couple_gates=False, activation="sigmoid"),
        ),
        replace(plain, name="large-logits", weight_scale=400.0, config=_config(recurrence_depth=1), learning_rate=1e-3),
        replace(plain, name="small-weights", clauses=("1.4", "6.2"), weight_scale=0.04, config=_tied()),
        replace(plain, name="depth-10", clauses=("2.2", "6.2"), config=_tied(recurrence_depth=10)),
        replace(
            plain,
            name="dropout-0.9",
            clauses=("4.1", "6.2"),
            # Masks multiply the kept units by ten. With the usual weights the state would be chaotic: the error
            # of any arithmetic grows a thousandfold in four time steps, and says nothing about the backend.
            weight_scale=0.1,
            rates=DropRates(0.9, 0.9, 0.9, 0.9),
            batch_size=8,
            max_grad_norm=1e6,
            config=_config(hidden_size=24, embedding_size=20),
        ),
        replace(plain, name="long-window", clauses=("3.2", "6.2"), length=40, rates=ALL_MASKS, config=_tied()),
    ]


def _smallest() -> RHNConfig:
    return RHNConfig(vocab_size=2, hidden_size=1, recurrence_depth=1)


DESCRIPTIONS: tuple[Description, ...] = (*_growing_cases(), *_pair_cases(), *_extreme_cases())


@cache
def _checks(description: Description) -> tuple[Check, ...]:
    return tuple(checks_of(make_inputs(description)))


@cache
def reference_answers(description: Description) -> Answers:
    """The reference's answers in float64; both dtypes are compared with them."""
    inputs = make_inputs(description)
    model = ReferenceBackend().build(inputs.config, inputs.parameters, "float64", optimizer=inputs.optimizer)
    return {check.name: check.ask(model, inputs) for check in _checks(description)}


def synthetic_case(description: Description) -> Case:
    """The described case: every check, against the reference."""
    return Case(
        name=description.name,
        clauses=description.clauses,
        checks=_checks(description),
        inputs=partial(make_inputs, description),
        expected=partial(reference_answers, description),
        dtypes=description.dtypes,
    )


def synthetic_cases() -> list[Case]:
    """All these cases, from simple to composite."""
    return [synthetic_case(description) for description in DESCRIPTIONS]
