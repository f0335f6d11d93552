"""The space of a search, and the command line that asks for one."""

import math
import shlex
from pathlib import Path

import pytest

import rhn
from rhn.training.options import DEFAULTS, OPTIONS, OptionError, pick
from rhn.training.options.plan import Plan
from rhn.training.options.row import COMMANDS
from rhn.training.recipes import RECIPES
from rhn.training.search.command_line import overview
from rhn.training.search.named_spaces import SPACES
from rhn.training.search.request import SEARCH_OPTIONS, read_request
from rhn.training.search.space import Dimension, Space, read_dimension
from rhn.training.terminal.read_words import read_words

RATE = "learning_rate=log(1e-3, 5e-3)"
DRAWS = 2000


def draws_of(key: str, text: str) -> list:
    space = Space((read_dimension(key, text),))
    return [space.draw(1, number)[key] for number in range(DRAWS)]


def test_uniform_numbers_are_uniform() -> None:
    drawn = draws_of("drop_input", "uniform(0.4, 0.8)")
    assert min(drawn) >= 0.4
    assert max(drawn) <= 0.8
    assert sum(value < 0.5 for value in drawn) / DRAWS == pytest.approx(0.25, abs=0.04)


def test_logarithmic_numbers_are_uniform_in_their_logarithm() -> None:
    drawn = draws_of("weight_decay", "log(1e-6, 1e-2)")
    assert min(drawn) >= 1e-6
    assert max(drawn) <= 1e-2
    assert sum(value < 1e-4 for value in drawn) / DRAWS == pytest.approx(0.5, abs=0.04)
    assert all(float(f"{value:.4g}") == value for value in drawn)


def test_an_option_of_integers_gets_integers_from_both_ends() -> None:
    drawn = draws_of("recurrence_depth", "uniform(2, 5)")
    assert {type(value) for value in drawn} == {int}
    for depth in (2, 3, 4, 5):
        assert drawn.count(depth) / DRAWS == pytest.approx(0.25, abs=0.04)
    drawn = draws_of("hidden_size", "log(1, 100)")
    assert set(drawn) >= {1, 2, 3}
    assert max(drawn) <= 100
    assert sum(value < 10 for value in drawn) / DRAWS == pytest.approx(math.log(9.5 / 0.5, 201), abs=0.04)


def test_choices_are_equally_likely() -> None:
    drawn = draws_of("embedding_size", "choice(10, None, 30, 40)")
    for value in (10, None, 30, 40):
        assert drawn.count(value) / DRAWS == pytest.approx(0.25, abs=0.04)


def test_a_draw_depends_on_seed_number_and_name_alone() -> None:
    rate, drop = read_dimension("learning_rate", "log(1e-3, 1)"), read_dimension("drop_x", "uniform(0, 0.5)")
    both, one = Space((rate, drop)), Space((drop,))
    assert both.draw(1, 7) == {"learning_rate": 0.853, "drop_embedding": 0.4359}  # on any machine, for ever
    assert one.draw(1, 7)["drop_embedding"] == both.draw(1, 7)["drop_embedding"]
    assert both.draw(1, 8) != both.draw(1, 7) != both.draw(2, 7)


def test_options_can_be_chosen_together() -> None:
    dimension = read_dimension("hidden_size,embedding_size", "choice((586, 586), (739, 370))")
    assert dimension.options(dimension.at(0.7)) == {"hidden_size": 739, "embedding_size": 370}
    assert dimension.options([586, 586]) == {"hidden_size": 586, "embedding_size": 586}  # as JSON gives it back


def test_a_bare_word_is_a_text() -> None:
    assert read_dimension("optimizer", "choice(sgd, 'adam')").values == ("sgd", "adam")


@pytest.mark.parametrize("text", ["log(0.001, 0.1)", "uniform(0, 8)", "choice(0.1, 2, 5)"])
def test_places_lie_between_0_and_1(text: str) -> None:
    dimension = read_dimension("learning_rate" if "log" in text else "weight_decay", text)
    assert [dimension.place(value) for value in dimension.values[:1] + dimension.values[-1:]] == [0, 1]
    assert str(read_dimension(dimension.key, str(dimension))) == str(dimension)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is nothing to search: expected OPTION=DISTRIBUTION"),
        (["demo"], "one of the spaces ptb_melis_10m_space"),
        (
            ["learning_rate=log(1e-3)"],
            "learning_rate='log(1e-3)' is not accepted: expected log(LOW, HIGH), two numbers",
        ),
        (["learning_rate=log(2, 1)"], "two numbers"),
        (["learning_rate=log(a, b)"], "two numbers"),
        (["learning_rate=uniform(1, 1e999)"], "two numbers"),
        (["learning_rate=log(0, 1)"], "learning_rate=0 is not accepted: expected a number above 0"),
        (["weight_decay=log(0, 1)"], "weight_decay='log(0, 1)' is not accepted: expected a LOW above 0"),
        (["drop_x=uniform(0, 1)"], "drop_embedding=1 is not accepted"),
        (["hidden_size=uniform(1.5, 4)"], "hidden_size=1.5 is not accepted"),
        (["learning_rate=loguniform(1, 2)"], "expected uniform(LOW, HIGH), log(LOW, HIGH) or choice("),
        (["learning_rate=__import__('os')"], "expected uniform("),
        (["learning_rate=log(1, 2, base=3)"], "expected uniform("),
        (["learning_rate=choice(1)"], "at least two choices"),
        (["learning_rate=choice(1, 1)"], "all different"),
        (["activation=choice(tanh, rulu)"], "activation='rulu' is not accepted"),
        (["activation=uniform(1, 2)"], "activation=1 is not accepted"),
        (["hidden_size,depth=choice((1, 2), 3)"], "a value for each of hidden_size, recurrence_depth"),
        (["hidden_size,depth=uniform(1, 2)"], "a value for each of hidden_size, recurrence_depth"),
        (["hidden_size,hidden_size=choice((1, 2), (3, 4))"], "expected each option once"),
        (["hidden_size,dephts=choice((1, 2), (3, 4))"], "option 'dephts' is not known: did you mean 'depth'?"),
        (
            ["hidden_size,run=choice((1, 2), (3, 4))"],
            "run='choice((1, 2), (3, 4))' is not accepted: expected a single value",
        ),
        (["hidden_size=3", "hidden_size,depth=choice((1, 2), (3, 4))"], "option 'hidden_size' is given twice"),
        (["learning_rat=log(1, 2)"], "did you mean 'learning_rate'?"),
        (["dataset=choice(ptb, text)"], "dataset='choice(ptb, text)' is not accepted: expected one of"),
        ([RATE, "trails=3"], "did you mean 'trials'?"),
        ([RATE, "trials=0"], "trials=0 is not accepted"),
        ([RATE, "sampler=tpee"], "did you mean tpe"),
        ([RATE, "run=r"], "run='r' is not accepted in a search"),
        ([RATE, "resume=runs/r"], "is not accepted in a search"),
        ([RATE, "search=a/b"], "search='a/b' is not accepted"),
        ([RATE, "demmo"], "recipe 'demmo' is not known: did you mean 'demo'?"),
        ([RATE, "-F"], "word '-F' is not understood"),
    ],
)
def test_a_mistake_gets_one_sentence(words: list[str], message: str) -> None:
    with pytest.raises(OptionError) as error:
        read_request("reference", ["with", *words])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_search_has_no_commands() -> None:
    with pytest.raises(OptionError, match=r"word 'evaluate' is not understood: expected `with`"):
        read_request("reference", ["evaluate", "with", RATE])


def test_a_file_may_hold_the_space(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "learning_rate: log(1e-3, 5e-3)\nhidden_size,depth: choice((3, 4), (5, 2))\nepochs: 2\ntrials: 7\n"
    )
    request = read_request("reference", ["with", str(tmp_path / "space.yaml"), "epochs=3"])
    assert [d.key for d in request.space.dimensions] == ["learning_rate", "hidden_size,recurrence_depth"]
    assert (request.fixed, request.how.trials) == ({"epochs": 3}, 7)


def test_what_follows_a_named_space_overrides_it() -> None:
    request = read_request("reference", ["with", "ptb_melis_10m_space", "hidden_size=100", RATE, "drop_state=0.1"])
    assert {d.key for d in request.space.dimensions} == {"learning_rate", "weight_decay", "drop_input", "drop_output"}
    assert request.options(request.space.draw(1, 1))["hidden_size"] == 100


@pytest.mark.parametrize("name", SPACES)
def test_a_named_space_is_around_its_recipe(name: str) -> None:
    request = read_request("reference", ["with", name])
    (recipe,) = request.recipes
    assert name == f"{recipe}_space"
    for dimension in request.space.dimensions:
        if len(dimension.names) == 1:
            assert 0 <= dimension.place(RECIPES[recipe][dimension.key]) <= 1
    for number in range(50):
        Plan.from_options(request.options(request.space.draw(1, number)))


@pytest.mark.parametrize(("name", "millions"), [("ptb_melis_10m_space", 10), ("ptb_melis_24m_space", 24)])
def test_the_sizes_of_melis_have_equal_numbers_of_parameters(name: str, millions: float) -> None:
    request = read_request("reference", ["with", name])
    (sizes,) = (d for d in request.space.dimensions if len(d.names) > 1)
    for choice in sizes.values:
        config = pick(rhn.RHNConfig, {**request.common, **sizes.options(choice), "vocab_size": 10_000})
        assert rhn.parameter_count(config) == pytest.approx(millions * 1e6, rel=0.005)


def test_the_best_is_a_command_line_that_trains_the_same() -> None:
    sizes = "hidden_size,embedding_size=choice((4, None), (5, 2))"
    words = ["demo", "data_path=my file's.txt", "vocab_size=None", "device='0'", sizes, RATE]
    request = read_request("torch", ["with", *words])
    draw = request.space.draw(1, 3)
    program = shlex.split(request.command(draw))
    assert program[:4] == ["python", "-m", "rhn_torch.train", "with"]
    read = read_words(program[3:], RECIPES)
    again = {**DEFAULTS, **{k: v for recipe in read.recipes for k, v in RECIPES[recipe].items()}, **read.values}
    assert again == request.options(draw)


def test_the_names_of_options_are_all_different() -> None:
    assert not SEARCH_OPTIONS.keys() & OPTIONS.keys()
    assert not SPACES.keys() & {*RECIPES, *COMMANDS}


def test_the_help_names_everything() -> None:
    page = overview("python -m rhn_torch.search")
    assert all(name in page for name in (*SEARCH_OPTIONS, *SPACES))


def test_a_dimension_that_is_narrow_stays_within_its_ends() -> None:
    narrow = Dimension(("learning_rate",), "uniform", (0.123456, 0.123457))
    assert 0.123456 <= narrow.at(0.5) <= 0.123457
