from typing import Any

import pytest

import rhn
from rhn.training.options import DEFAULTS
from rhn.training.recipes import RECIPES
from rhn.training.recipes.published_scores import PAPER, PAPER_ROWS, PaperRow, paper_result, published_for
from rhn.training.terminal.help import describe_recipe

OF_THE_PAPER = [row for row in PAPER_ROWS if row.source == PAPER]
OF_OTHERS = [row for row in PAPER_ROWS if row.source != PAPER]

VOCABULARY = {"ptb": 10_000, "enwik8": 205, "text8": 27}


def options_of(row: PaperRow) -> dict[str, Any]:
    return {
        "dataset": row.dataset,
        "recurrence_depth": row.depth,
        "hidden_size": row.units,
        "tie_weights": row.tied,
        "embedding_size": row.embedding_size,
        "num_layers": 1,
        "couple_gates": True,
        "activation": "tanh",
        "epochs": 1,
    }


@pytest.mark.parametrize("row", OF_THE_PAPER, ids=lambda row: f"{row.dataset}-{row.depth}-{row.units}-{row.tied}")
def test_the_printed_parameter_counts_are_ours(row: PaperRow) -> None:
    config = rhn.RHNConfig(VOCABULARY[row.dataset], row.units, row.depth, 1, row.embedding_size, row.tied)
    assert abs(rhn.parameter_count(config) - row.parameters) <= 1000  # printed in thousands, rounded or cut off


@pytest.mark.parametrize("row", [row for row in OF_THE_PAPER if not row.remark])
def test_a_run_finds_the_row_of_its_architecture(row: PaperRow) -> None:
    assert paper_result(options_of(row)) is row


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "pydoc"},
        {"hidden_size": 831},
        {"recurrence_depth": 9},
        {"num_layers": 2},
        {"embedding_size": 100},
        {"couple_gates": False},
        {"activation": "relu"},
    ],
)
def test_another_architecture_finds_none(change: dict[str, Any]) -> None:
    ptb_sota = next(row for row in PAPER_ROWS if row.depth == 10 and row.tied)
    assert paper_result({**options_of(ptb_sota), **change}) is None


def test_no_options_find_no_row() -> None:
    assert paper_result({}) is None


def test_scores_have_the_digits_of_the_paper() -> None:
    best = next(row for row in PAPER_ROWS if row.depth == 10 and row.tied)
    assert (best.printed("valid"), best.printed("test"), best.unit) == ("68.3", "66.0", "perplexity")
    characters = next(row for row in PAPER_ROWS if row.test == 1.30)
    assert (characters.printed("valid"), characters.printed("test"), characters.unit) == ("-", "1.30", "bits per byte")


@pytest.mark.parametrize("row", OF_OTHERS, ids=lambda row: row.recipe)
def test_a_row_of_others_belongs_to_a_recipe_for_such_a_model(row: PaperRow) -> None:
    assert row.recipe is not None
    recipe = RECIPES[row.recipe]
    assert published_for(row.recipe) is row
    assert row.dataset == recipe["dataset"]
    assert row.tied == recipe.get("tie_weights", True)
    assert row.depth in (None, recipe["recurrence_depth"])
    assert row.units in (None, recipe["hidden_size"])
    assert paper_result({**DEFAULTS, **recipe}) is not row
    assert f"; {row.source}" in describe_recipe(row.recipe)
    assert f": {row.printed('test')} {row.unit}" in describe_recipe(row.recipe)


def test_no_recipe_has_a_row_of_others_by_accident() -> None:
    assert published_for("ptb_sota") is None
    assert all(row.recipe is None for row in OF_THE_PAPER)
