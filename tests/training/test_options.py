import pytest

from rhn.training.loop import TrainingOptions
from rhn.training.options import ALIASES, OptionError, translate_arguments

OPTIONS = {*ALIASES.values(), "learning_rate", "weight_decay"}
RECIPES = {"demo", "ptb_sota"}
VALID = {
    "batch_size": 20,
    "bptt_length": 35,
    "epochs": 500,
    "learning_rate": 0.2,
    "lr_decay": 1.02,
    "decay_after": 20,
    "weight_decay": 1e-7,
    "max_grad_norm": 10,
    "drop_embedding": 0.25,
    "drop_input": 0.75,
    "drop_state": 0.25,
    "drop_output": 0.75,
    "seed": 1,
    "checkpoint_minutes": 10,
    "schedule": "exponential",
    "plateau_patience": 3,
    "patience": None,
    "average_after": None,
    "max_steps": None,
    "max_minutes": None,
}


@pytest.mark.parametrize(("theirs", "ours"), ALIASES.items())
def test_the_authors_option_names_work(theirs: str, ours: str) -> None:
    assert translate_arguments(["train", "with", "ptb_sota", f"{theirs}=3"], OPTIONS, RECIPES) == [
        "train",
        "with",
        "ptb_sota",
        f"{ours}=3",
    ]


def test_a_value_may_hold_an_equals_sign() -> None:
    assert translate_arguments(["with", "checkpoint=a=b"], OPTIONS, RECIPES) == ["with", "checkpoint=a=b"]


def test_words_before_with_are_left_alone() -> None:
    assert translate_arguments(["print_config"], OPTIONS, RECIPES) == ["print_config"]


def test_an_unknown_option_suggests_the_nearest() -> None:
    with pytest.raises(OptionError, match="'learning_rat' is not known: did you mean 'learning_rate'"):
        translate_arguments(["with", "learning_rat=1"], OPTIONS, RECIPES)


def test_an_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(OptionError, match="'ptb_sotta' is not known: did you mean 'ptb_sota'"):
        translate_arguments(["with", "ptb_sotta"], OPTIONS, RECIPES)


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
        ("schedule", "linear"),
        ("patience", 0),
        ("max_minutes", "long"),
    ],
)
def test_an_impossible_value_is_named(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"{name}={value!r} is not accepted: expected"):
        TrainingOptions(**{**VALID, name: value})


def test_the_learning_rate_decays_from_the_epoch_the_authors_mean() -> None:
    options = TrainingOptions(**VALID)
    assert options.learning_rate_of(19, []) == 0.2  # the 20th epoch
    assert options.learning_rate_of(20, []) == 0.2 / 1.02  # "max_epoch = 20": the 21st is the first decayed one
    assert options.learning_rate_of(22, []) == 0.2 / 1.02**3
