"""Searches with Optuna's samplers and pruners."""

from pathlib import Path

import pytest
from pretended_training import Pretence

from rhn.training.loop import DivergedError
from rhn.training.search.folder import SearchFolder
from rhn.training.search.request import Request, read_request
from rhn.training.search.trials import search

optuna = pytest.importorskip("optuna", reason="Optuna is optional")

WORDS = [
    *("dataset=text", "data_path=text.txt", "bptt_length=10"),
    *("search=s", "trials=8", "learning_rate=log(0.01, 0.5)", "hidden_size,depth=choice((4, 1), (8, 2))"),
    "batch_size=uniform(2, 4)",
]
FOLDER = SearchFolder(Path("searches/s"))


@pytest.fixture(autouse=True)
def folder_with_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("the quick brown fox jumps over the lazy dog.\n" * 30)


def request_of(*words: str) -> Request:
    return read_request("reference", ["with", *WORDS, *words])


def study() -> "optuna.Study":
    backend = optuna.storages.journal.JournalFileBackend(str(FOLDER.journal))
    return optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(backend))


def test_the_sampler_proposes_and_learns() -> None:
    search(request_of("sampler=tpe"), Pretence({2: DivergedError("no")}))
    trials = FOLDER.trials()
    assert [trial.outcome for trial in trials] == ["finished", "diverged", *["finished"] * 6]
    told = study().trials
    assert [each.value for each in told] == [None if t.outcome == "diverged" else t.valid_nats for t in trials]
    assert [each.params["learning_rate"] for each in told] == [t.draw["learning_rate"] for t in trials]
    assert told[0].params["hidden_size,recurrence_depth"] in ("4, 1", "8, 2")
    assert trials[0].draw["hidden_size,recurrence_depth"] in ([4, 1], [8, 2])
    assert all(isinstance(trial.draw["batch_size"], int) for trial in trials)
    assert len({trial.draw["learning_rate"] for trial in trials}) == 8


def test_a_trial_of_a_process_that_ended_keeps_its_draw() -> None:
    train = Pretence({2: OSError(28, "No space left on device")})
    with pytest.raises(OSError, match="No space"):
        search(request_of("sampler=tpe"), train)
    draw = FOLDER.trials()[1].draw
    train.ends.clear()
    search(request_of("sampler=tpe"), train)
    assert FOLDER.trials()[1].draw == draw
    states = [each.state.name for each in study().trials]
    assert states == ["COMPLETE", "FAIL", *["COMPLETE"] * 7]
    assert study().trials[2].params["learning_rate"] == draw["learning_rate"]


def test_the_pruner_ends_what_is_worse_than_half() -> None:
    request = request_of("pruner=median", "trials=12")
    train = Pretence(checks=5)
    search(request, train)
    trials = FOLDER.trials()
    for trial in trials:  # random all the same
        assert request.space.options(trial.draw) == request.space.options(request.space.draw(1, trial.number))
    pruned = [trial for trial in trials if trial.outcome == "pruned"]
    assert pruned
    assert all(trial.number > 5 and trial.epochs < 5 for trial in pruned)  # Optuna looks at five trials first
    assert {each.number for each in study().trials if each.state.name == "PRUNED"} == {t.optuna_number for t in pruned}
    assert "pruned" in (FOLDER.path / "report.html").read_text()
