"""A search, its trials, its folder and its page; most trials are of a training that only pretends."""

import json
import math
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pretended_training import Pretence

from rhn.preflight import PreflightError
from rhn.training.loop import DivergedError
from rhn.training.options import OptionError
from rhn.training.run.folder import RunFolder
from rhn.training.search import trials
from rhn.training.search.command_line import run as run_command
from rhn.training.search.folder import SearchFolder, Trial, best_of
from rhn.training.search.request import Request, read_request
from rhn.training.search.trials import MOST_STARTS, search
from rhn.training.terminal.user_errors import RunInterruptedError

TEXT = "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs.\n" * 30
WORDS = [
    *("dataset=text", "data_path=text.txt", "hidden_size=5", "recurrence_depth=1", "batch_size=4", "bptt_length=10"),
    *("epochs=2", "progress=False", "preflight=False", "search=s", "trials=4", "learning_rate=log(0.01, 0.5)"),
]
FOLDER = SearchFolder(Path("searches/s"))


@pytest.fixture(autouse=True)
def folder_with_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)


def test_a_launcher_of_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        SystemExit, match="error: search runs in one process, but WORLD_SIZE says that 2 work together:"
    ):
        run_command("torch", ["with", *WORDS])
    assert not FOLDER.path.exists()


def request_of(*words: str) -> Request:
    return read_request("reference", ["with", *WORDS, *words])


def outcomes() -> list[str | None]:
    return [trial.outcome for trial in FOLDER.trials()]


def test_every_trial_is_trained_once_and_the_best_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    train = Pretence()
    search(request_of(), train)
    assert train.trained == [(1, False), (2, False), (3, False), (4, False)]
    assert outcomes() == ["finished"] * 4
    best = min(FOLDER.trials(), key=lambda trial: trial.draw["learning_rate"])
    assert best_of(FOLDER.trials()) == best
    out = capsys.readouterr().out
    score = f"{(1 + best.draw['learning_rate'] / 2) / math.log(2):.4g}"
    assert f"best: trial {best.number}, bits per character {score} on valid" in out
    assert f"learning_rate={best.draw['learning_rate']}\n" in out
    assert (best.epochs, best.seconds) == (2, 60)

    search(request_of("trials=6"), train)  # the same, and more of it
    assert train.trained[4:] == [(5, False), (6, False)]


def test_the_draws_are_those_of_seed_and_number() -> None:
    search(request_of(), Pretence())
    request = request_of()
    assert [trial.draw for trial in FOLDER.trials()] == [request.space.draw(1, n) for n in (1, 2, 3, 4)]


def test_a_trial_that_fails_is_an_outcome() -> None:
    ends = {
        1: DivergedError("loss nan at step 3"),
        2: RuntimeError("CUDA out\nof memory"),
        3: MemoryError(),
        4: OptionError("no"),
    }
    search(request_of("trials=5"), Pretence(ends))
    assert outcomes() == ["diverged", "failed", "failed", "failed", "finished"]
    assert [trial.why for trial in FOLDER.trials()] == [
        "loss nan at step 3",
        r"RuntimeError: CUDA out\nof memory",
        "this machine has not enough memory: make hidden_size, batch_size or recurrence_depth smaller",
        "no",
        "",
    ]
    assert all(FOLDER.run(number).joinpath("report.html").exists() for number in (1, 2, 3, 4))


def test_no_trial_may_finish(capsys: pytest.CaptureFixture[str]) -> None:
    search(request_of("trials=1"), Pretence(checks=0))
    assert FOLDER.trials()[0].why == "it ended before the first validation"
    assert "no trial has finished" in capsys.readouterr().out
    assert "No trial has finished" in (FOLDER.path / "report.html").read_text()


@pytest.mark.parametrize(
    "end",
    [OSError(28, "No space left on device"), PreflightError("no"), ImportError("no"), RunInterruptedError("stop", 15)],
)
def test_what_is_no_fault_of_a_trial_ends_the_process_and_not_the_trial(end: BaseException) -> None:
    train = Pretence({2: end})
    for _ in range(MOST_STARTS + 1):  # as often as one likes
        with pytest.raises(type(end)):
            search(request_of(), train)
    assert outcomes() == ["finished", None]
    train.ends.clear()
    search(request_of(), train)
    assert train.trained[-3:] == [(2, True), (3, False), (4, False)]


def test_a_trial_that_kills_the_process_again_and_again_has_failed() -> None:
    search(request_of("trials=1"), Pretence())
    FOLDER.write(Trial(1, request_of().space.draw(1, 1), starts=[0] * (MOST_STARTS - 1)))
    FOLDER.write(Trial(2, request_of().space.draw(1, 2), starts=[0] * MOST_STARTS))
    search(request_of(), Pretence())
    assert outcomes() == ["finished", "failed", "finished", "finished"]
    assert FOLDER.trials()[1].why == "the process was killed 3 times in this trial, at the same checkpoint"


def test_another_search_is_not_mixed_in() -> None:
    search(request_of(), Pretence())
    with pytest.raises(OptionError, match=r"holds another search \(epochs is 2 there, and 3 here\): choose another"):
        search(request_of("epochs=3"), Pretence())
    with pytest.raises(OptionError, match=r"learning_rate is log\(0.01, 0.5\) there, and log\(0.01, 0.6\) here"):
        search(request_of("learning_rate=log(0.01, 0.6)"), Pretence())
    search(request_of("checkpoint_minutes=3", "device=None", "data_path=./text.txt"), Pretence())
    Path("text.txt").write_text(TEXT + "another text")
    with pytest.raises(OptionError, match=r"holds another search \(data is [0-9a-f]+ there, and [0-9a-f]+ here\)"):
        search(request_of(), Pretence())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data_path=none.txt"], "none.txt"),
        (["batch_size=choice(4, 80)"], "the valid part of dataset='text' is not accepted"),
        (["device=abacus"], "device='abacus' is not accepted"),
        (["precision=choice(bf16, tf32)"], "is not accepted: expected one of None"),
        (["bptt_jitter=choice(None, 20.0)"], "bptt_jitter=20.0 is not accepted"),
        (["vocab_size=7"], "vocab_size=7 is not accepted"),
        (["searches_path=text.txt"], "the folder text.txt/s cannot be made"),
    ],
)
def test_a_mistake_ends_the_command_before_any_trial(words: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as end:
        run_command("reference", ["with", *WORDS, *words])
    assert re.search(f"^error: .*{message}", str(end.value.code))
    assert not FOLDER.path.exists()


def test_optuna_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for words, option in ((["sampler=tpe"], "sampler='tpe'"), (["pruner=median"], "pruner='median'")):
        with pytest.raises(ImportError, match=rf"{option} needs Optuna, which is not installed: pip install optuna"):
            search(request_of(*words), Pretence())


@pytest.mark.parametrize("file", ["search.json", "trials/0001.json"])
def test_a_damaged_file_gets_a_sentence(file: str) -> None:
    search(request_of("trials=1"), Pretence())
    for content in ("{", "[]", '{"outcome": 3}'):
        (FOLDER.path / file).write_text(content)
        with pytest.raises(OptionError, match=f"{file} is damaged|holds another search"):
            search(request_of("trials=1"), Pretence())


def test_processes_share_a_search() -> None:
    started: list[int] = []

    def while_another_works(*arguments: Any) -> float:
        started.append(len(started))
        if len(started) == 1:
            search(request_of(), Pretence())  # as another process: it holds no lock of this one
        return Pretence()(*arguments)

    search(request_of(), while_another_works)
    assert (outcomes(), len(started)) == (["finished"] * 4, 1)


def in_a_process(words: list[str]) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=run_command, args=("reference", ["with", *words]))
    process.start()
    return process


def test_two_processes_do_each_trial_once() -> None:
    processes = [in_a_process([*WORDS, "trials=6"]) for _ in range(2)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert outcomes() == ["finished"] * 6
    assert all(trial.starts == [0] for trial in FOLDER.trials())
    summary = json.loads((FOLDER.run(1) / "summary.json").read_text())
    assert FOLDER.trials()[0].valid_nats == pytest.approx(summary["valid"]["nats"], rel=0.05)


def test_a_killed_search_goes_on_where_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    words = [*WORDS, "trials=2", "epochs=400", "checkpoint_minutes=1e-9", "learning_rate=choice(0.1, 0.2)"]
    process = in_a_process(words)
    last = RunFolder(FOLDER.run(1)).last
    for _ in range(600):
        if last.exists():
            break
        time.sleep(0.1)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert outcomes() == [None]
    options = json.loads((FOLDER.run(1) / "options.json").read_text())
    (FOLDER.run(1) / "options.json").write_text(json.dumps({**options, "epochs": 1}))  # enough of it

    train = Pretence()

    def resume(backend: str, values: Mapping[str, Any], given: Mapping[str, Any], log_scalar: Callable) -> Any:
        if values["resume"] is None:
            return train(backend, values, given, log_scalar)
        return trials.train_model(backend, values, given, log_scalar)

    search(read_request("reference", ["with", *words]), resume)
    assert re.search(r"continued from step \d+", capfd.readouterr().out)
    assert (outcomes(), train.trained) == (["finished"] * 2, [(2, False)])


def test_the_page_escapes_what_it_shows() -> None:
    request = read_request("reference", ["with", *WORDS[:-3], "search=<b>s", "learning_rate=log(0.01, 1)", "trials=3"])
    search(request, Pretence({1: DivergedError("<i>nan</i>")}))
    page = (SearchFolder(request.folder).path / "report.html").read_text()
    assert "<b>" not in page
    assert "<i>" not in page
    assert "&lt;i&gt;nan" in page
    assert "Search &lt;b&gt;s" in page


def test_the_page_shows_all_trials() -> None:
    search(request_of("trials=5", "activation=choice(tanh, relu)"), Pretence({2: DivergedError("no")}))
    page = (FOLDER.path / "report.html").read_text()
    assert page.count("<polyline") == 5  # one had a score before it diverged
    assert page.count("<circle") == 2 * 5
    assert page.count('<polyline class="trial best"') == 1
    for number in range(1, 6):
        assert f'<a href="runs/{number:04}/report.html">' in page or f"<td>{number}</td>" in page


def test_one_bad_trial_does_not_press_the_others_together() -> None:
    search(request_of("trials=1"), Pretence())
    for number, nats in enumerate((1.0, 1.1, 1.2, 90.0), start=1):
        FOLDER.write(Trial(number, {"learning_rate": 0.1}, "finished", nats))
    search(request_of(), Pretence())
    page = (FOLDER.path / "report.html").read_text()
    assert "or worse" in page
    assert 'cy="15.0"' in page  # the best
    assert 'cy="165.0"' in page  # the worst
