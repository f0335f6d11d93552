"""The table of options: every one is checked, and the authors' names are known."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rhn.training.options import (
    ALIASES,
    DEFAULTS,
    OPTIONS,
    OptionError,
    Options,
    check_value,
    options_of,
)
from rhn.training.options.plan import Plan
from rhn.training.options.row import COMMANDS, Option
from rhn.training.terminal.help import help_on, overview


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("bptt_length", 3.5),
        ("epochs", True),
        ("learning_rate", 0.0),
        ("learning_rate", "fast"),
        ("lr_decay", float("nan")),
        ("weight_decay", -1e-7),
        ("max_grad_norm", float("inf")),
        ("drop_state", 1.0),
        ("seed", -1),
        ("seed", 2**64),
        ("schedule", "linear"),
        ("patience", 0),
        ("max_minutes", "long"),
        ("preflight", "false"),
        ("progress", 1),
        ("run", 2024),
        ("run", "../elsewhere"),
        ("runs_path", 3),
        ("resume", True),
        ("checkpoint", 0),
        ("data_path", 5),
        ("data_path", ("one", "two")),
        ("data_path", "a\0b"),
        ("beta2", False),
        ("epsilon", True),
    ],
)
def test_an_impossible_value_is_named(name: str, value: object) -> None:
    with pytest.raises(OptionError) as caught:
        Options(**{name: value})
    assert str(caught.value).startswith(f"{name}={value!r} is not accepted: expected ")
    assert "\n" not in str(caught.value)


def test_every_seed_of_the_specification_is_accepted() -> None:
    assert Options(seed=2**64 - 1).seed == 2**64 - 1


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_an_option_accepts_its_default_and_says_what_it_is(option: Option) -> None:
    check_value(option, option.default)
    assert option.meaning
    assert option.accepted.expected
    assert option.commands
    assert set(option.commands) <= set(COMMANDS)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
    max_leaves=5,
)


@given(name=st.sampled_from(sorted(OPTIONS)), value=ANYTHING)
def test_any_value_is_accepted_or_gets_one_sentence(name: str, value: Any) -> None:
    message = ""
    try:
        check_value(OPTIONS[name], value)
    except OptionError as error:
        message = str(error)
    assert message == "" or message.startswith(f"{name}=")


def test_a_misspelt_choice_suggests_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"dataset='ptbb' is not accepted: .* \(did you mean ptb\?\)"):
        Options(dataset="ptbb")


def test_aliases_are_names_of_their_own() -> None:
    assert not set(ALIASES) & set(OPTIONS)
    assert len(ALIASES) == sum(len(option.aliases) for option in OPTIONS.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"precision": "bf16", "dtype": "float64"}, "precision='bf16' is not accepted with dtype='float64'"),
        ({"level": "char"}, "level='char' is not accepted with dataset='ptb'"),
        ({"bptt_jitter": 36.0, "bptt_length": 35}, "bptt_jitter=36.0 is not accepted: .* at most bptt_length=35"),
        ({"transform_bias": 2e8}, r"transform_bias=200000000.0 is not accepted: .* -1e\+08 to 1e\+08"),
        ({"init_scale": -1e-3}, "init_scale=-0.001 is not accepted: expected a number from 0 to"),
    ],
)
def test_a_plan_refuses_values_that_do_not_go_together(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan.from_options(values)


@pytest.mark.parametrize(
    "sizes",
    [{"hidden_size": 10**6}, {"recurrence_depth": 10**400}, {"tie_weights": False, "embedding_size": 10**12}],
    ids=lambda sizes: list(sizes)[-1],
)
def test_a_model_that_cannot_fit_is_refused_with_its_size(sizes: dict[str, Any]) -> None:
    plan = Plan.from_options(sizes)
    name, size = list(sizes.items())[-1]
    with pytest.raises(OptionError, match=rf"\b{name}={size}\b.* parameters need .* GB to train"):
        plan.initial_parameters(plan.architecture(10_000))


def test_precision_has_one_default() -> None:
    plan = Plan.from_options({})
    assert plan.precision(training=True, device="cpu") == "float32"
    assert plan.precision(training=True, device="a GPU") == "tf32"
    assert plan.precision(training=False, device="a GPU") == "float32"
    assert Plan.from_options({"dtype": "float64"}).precision(training=True, device="a GPU") == "float32"
    assert Plan.from_options({"precision": "bf16"}).precision(training=True, device="cpu") == "bf16"


def test_the_learning_rate_decays_from_the_epoch_the_authors_mean() -> None:
    plan = Plan.from_options({"batch_size": 20})
    assert plan.learning_rate(19, []) == 0.2  # the 20th epoch
    assert plan.learning_rate(20, []) == 0.2 / 1.02  # "max_epoch = 20": the 21st is the first decayed one
    assert math.isclose(plan.learning_rate(22, []), 0.2 / 1.02**3)


def test_help_lists_every_command_and_each_command_its_options() -> None:
    page = overview("program")
    for command in COMMANDS:
        assert f"  {command} " in page
        listed = help_on(command, "program")
        for option in options_of(command):
            assert f"  {option.name} = {DEFAULTS[option.name]!r}\n" in listed
    assert "Authors' name: drop_x" in help_on("drop_embedding", "program")
    assert "hidden_size = 830" in help_on("ptb_sota", "program")
    with pytest.raises(OptionError, match="help 'evaluat' is not known: did you mean 'evaluate'"):
        help_on("evaluat", "program")
