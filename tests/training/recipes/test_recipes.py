"""The named configs against what the paper reports, and the command lines of the authors' README."""

import pytest

import rhn
from rhn.training.options import DEFAULTS, OPTIONS, pick
from rhn.training.options.plan import Plan
from rhn.training.options.row import COMMANDS
from rhn.training.recipes import RECIPES
from rhn.training.recipes.paper import PAPER_RECIPES
from rhn.training.recipes.published_scores import PAPER, PAPER_ROWS, PaperRow, paper_result, published_for
from rhn.training.recipes.tuned import TUNED
from rhn.training.terminal.help import describe_recipe
from rhn.training.terminal.read_words import read_words
from rhn_datasets import CORPORA

VOCABULARY = {"ptb": 10_000, "enwik8": 205, "text8": 27}

# Of the recipes beyond the paper: the vocabulary, and the number of parameters.
SIZES = {
    "ptb_ntasgd": (10_000, 23_482_400),
    "ptb_awd": (10_000, 23_482_400),
    "ptb_melis_10m": (10_000, 9_996_612),
    "ptb_melis_24m": (10_000, 23_997_558),
    "ptb_melis_24m_update": (10_000, 23_997_558),
    "wikitext2_melis_24m": (33_278, 23_960_470),
    "enwik8_melis_27m": (205, 26_642_230),
    "ptb_char": (50, 2_008_950),
    "ptb_cpu": (10_000, 8_280_848),
    "shakespeare": (65, 1_876_641),
}


def options_of(name: str) -> dict:
    return {**DEFAULTS, **RECIPES[name]}


@pytest.mark.parametrize("name", PAPER_RECIPES)
def test_a_recipe_has_the_parameters_that_the_paper_prints(name: str) -> None:
    options = options_of(name)
    config = pick(rhn.RHNConfig, {**options, "vocab_size": VOCABULARY[options["dataset"]]})
    row = paper_result(options)
    assert row is not None
    assert abs(rhn.parameter_count(config) - row.parameters) < 1000


@pytest.mark.parametrize("name", TUNED)
def test_a_recipe_beyond_the_paper_has_its_size(name: str) -> None:
    vocab_size, parameters = SIZES[name]
    plan = Plan.from_options(options_of(name))
    assert rhn.parameter_count(plan.architecture(vocab_size)) == parameters
    published = published_for(name)
    assert (f"{published.source}" in describe_recipe(name)) if published else (";" not in describe_recipe(name))


def test_every_row_of_the_paper_has_a_recipe() -> None:
    def key(row: PaperRow) -> tuple:
        return row.dataset, row.depth, row.units, row.tied

    covered = {key(row) for name in PAPER_RECIPES if (row := paper_result(options_of(name)))}
    assert covered == {key(row) for row in PAPER_ROWS if row.source == PAPER}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_only_says_what_differs_from_the_defaults(name: str) -> None:
    assert RECIPES[name]["dataset"] in CORPORA
    assert RECIPES[name].keys() <= DEFAULTS.keys()
    same = {option for option, value in RECIPES[name].items() if DEFAULTS[option] == value}
    assert same <= {"dataset", "hidden_size", "recurrence_depth", "batch_size", "learning_rate"}  # said for clarity


# Of the authors' README, with the module's name replaced; and all options of their TensorFlow and Theano programs.
@pytest.mark.parametrize(
    "line",
    [
        "with ptb_sota",
        "with enwik8_sota",
        "with text8_sota",
        "with ptb_sota depth=20",
        "print_config with ptb_sota",
        "evaluate with ptb_sota load_model=best.ckpt",
        "evaluate_mc with ptb_sota load_model=best.ckpt mc_steps=10",
        "with data_path=data dataset=ptb init_scale=0.04 init_bias=-2.0 num_layers=1 depth=4 learning_rate=0.2"
        " lr_decay=1.02 weight_decay=1e-7 max_grad_norm=10 num_steps=35 hidden_size=1000 max_epoch=20"
        " max_max_epoch=500 batch_size=20 drop_x=0.25 drop_i=0.75 drop_h=0.25 drop_o=0.75 tied=True load_model=x"
        " mc_steps=1 vocab_size=10000",
        "with init_T_bias=-2.0 init_other_bias=uniform drop_s=0.25 tied_embeddings=True tied_noise=True",
    ],
)
def test_the_authors_command_lines(line: str) -> None:
    words = read_words(line.split(), RECIPES)
    assert words.command in {None, "print_config", *COMMANDS}
    assert words.values.keys() <= OPTIONS.keys()
