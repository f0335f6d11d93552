"""The command as its user types it, with the reference as backend.

Most tests run it inside their own process, which has everything imported already. What a process of its own is needed
for (its exit status, signals, pipes, the encoding of a terminal) is tested in one.
"""

import importlib.util
import json
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import rhn
from rhn.processes import Processes
from rhn.training.command_line import create_experiment, run
from rhn.training.options.row import COMMANDS
from rhn.training.run.folder import RunFolder
from rhn.training.terminal.console import warn

TEXT = "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs.\n" * 30
TINY = [
    "dataset=text",
    "hidden_size=6",
    "recurrence_depth=2",
    "batch_size=4",
    "bptt_length=10",
    "epochs=2",
    "progress=False",
]
PROGRAM = "from rhn.training.command_line import run; run('reference')"

RUN = ["with", *TINY, "run=r"]


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


CommandLine = Callable[..., Result]


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def shell(tmp_path: Path, text_file: Path) -> CommandLine:
    """Runs the training command of the reference backend in a process and a folder of its own."""

    def call(*words: str) -> Result:
        program = [sys.executable, "-c", PROGRAM, *words]
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        return Result(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def command_line(
    tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    """Does the same in this process, and ends as Python would end it."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Result:
        status: object = 0
        try:
            run("reference", words)
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        return Result(status, out, err) if isinstance(status, int) else Result(1, out, f"{err}{status}\n")

    return call


def test_train_leaves_a_complete_run_folder(shell: CommandLine, command_line: CommandLine, tmp_path: Path) -> None:
    result = shell(*RUN, "data_path=text.txt")
    assert result.returncode == 0, result.stderr
    assert "parameters" in result.stdout
    assert "test (batch 1): bits per character" in result.stdout
    folder = tmp_path / "runs" / "r"
    assert {path.name for path in folder.iterdir()} == {
        "options.json",
        "environment.json",
        "report.html",
        "metrics.jsonl",
        "best.safetensors",
        "last.safetensors",
        "summary.json",
        ".lock",
        "sample.txt",
        "warnings.json",
    }
    assert (folder / "warnings.json").read_text() == "[]\n"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["train_nats"] < rows[0]["train_nats"]
    parameters, metadata = rhn.load_checkpoint(folder / "best.safetensors")
    rhn.check_parameters(rhn.RHNConfig(**metadata["config"]), parameters)

    summary = json.loads((folder / "summary.json").read_text())
    again = command_line("evaluate", "with", "checkpoint=runs/r/best.safetensors", "progress=False")
    assert f"bits per character {summary['test']['value']:.4g}" in again.stdout, again.stderr


def test_the_same_seed_gives_the_same_run(shell: CommandLine, command_line: CommandLine, tmp_path: Path) -> None:
    for name, process in {"a": shell, "b": command_line}.items():
        assert process("with", *TINY, "data_path=text.txt", "epochs=1", f"run={name}").returncode == 0
    a, b = (rhn.load_checkpoint(tmp_path / "runs" / name / "last.safetensors")[0] for name in ("a", "b"))
    assert all((a[name] == b[name]).all() for name in a)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hidden_size=0"], "hidden_size=0 is not accepted"),
        (["drop_x=1.5"], "drop_embedding=1.5 is not accepted"),
        (["epochz=3"], "did you mean 'epochs'"),
        (["dataset=ptbb"], "did you mean ptb"),
        (["dataset=text", "data_path=nowhere.txt"], "nowhere.txt"),
        (["dataset=pydoc", "vocab_size=7"], "vocab_size=7 is not accepted"),
        (["dataset=pydoc", "device=abacus"], "device='abacus'"),
        (["dataset=pydoc", "dtype=float8"], "dtype='float8'"),
        (["precision=fp4"], "precision='fp4' is not accepted: expected one of None, float32, tf32, bf16"),
        (["precision=bf16", "dtype=float64"], "precision='bf16' is not accepted with dtype='float64'"),
        (["recompute=yes"], "recompute='yes' is not accepted"),
        (["other_bias=none"], "other_bias='none' is not accepted"),
    ],
)
def test_bad_input_gets_one_sentence(command_line: CommandLine, tmp_path: Path, words: list[str], message: str) -> None:
    result = command_line("with", *words)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "runs").exists()  # refused before anything is written


def test_a_process_ends_with_the_sentence_alone(shell: CommandLine) -> None:
    result = shell("with", "hidden_size=0")
    assert result.returncode == 1
    assert result.stderr == "error: hidden_size=0 is not accepted: expected an integer of at least 1\n"


def test_an_existing_run_is_not_overwritten(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "runs" / "r").mkdir(parents=True)
    (tmp_path / "runs" / "r" / "precious").touch()
    result = command_line(*RUN, "data_path=text.txt")
    assert result.returncode == 1
    assert "is not empty" in result.stderr


def test_evaluate_without_a_checkpoint_says_so(command_line: CommandLine) -> None:
    assert "checkpoint=None is not accepted: expected the file of a checkpoint" in command_line("evaluate").stderr


def test_a_diverging_run_stops_and_says_where(command_line: CommandLine) -> None:
    result = command_line(*RUN, "data_path=text.txt", "learning_rate=1e300", "max_grad_norm=1e300")
    assert result.returncode == 1
    assert "gradient norm" in result.stderr
    assert "step" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_leaves(tmp_path: Path, text_file: Path, number: signal.Signals) -> None:
    words = ["with", *TINY, "data_path=text.txt", "run=r", "epochs=100000"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "runs" / "r" / "metrics.jsonl"
    for _ in range(600):
        if metrics.exists():
            break
        time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "stopped at step" in out
    assert "continue with resume=runs/r" in out
    assert "Traceback" not in err
    _, metadata = rhn.load_checkpoint(tmp_path / "runs" / "r" / "last.safetensors")
    assert metadata["progress"]["step"] > 0


def test_print_config_shows_what_the_authors_command_line_asks_for(command_line: CommandLine) -> None:
    result = command_line("print_config", "with", "ptb_sota", "depth=20")
    assert result.returncode == 0
    assert "recurrence_depth = 20" in result.stdout


def test_sacred_records_configuration_and_metrics(command_line: CommandLine, tmp_path: Path) -> None:
    result = command_line("-F", "records", *RUN, "data_path=text.txt")
    assert result.returncode == 0, result.stderr
    record = tmp_path / "records" / "1"
    assert json.loads((record / "config.json").read_text())["hidden_size"] == 6
    assert json.loads((record / "run.json").read_text())["status"] == "COMPLETED"
    history = [json.loads(line) for line in (tmp_path / "runs" / "r" / "metrics.jsonl").read_text().splitlines()]
    metrics = json.loads((record / "metrics.json").read_text())
    for name in ("train_nats", "valid_nats", "test_nats", "learning_rate", "gradient_norm", "tokens_per_second"):
        assert metrics[name]["steps"] == [row["step"] for row in history]
        assert metrics[name]["values"] == [row[name] for row in history]


def test_sacred_records_in_the_first_process_only(
    command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = Processes(rank=1, count=2, shares=2)
    monkeypatch.setattr("rhn.training.command_line.join_processes", lambda backend, device: second)
    result = command_line("-F", "records", *RUN, "data_path=text.txt")
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.glob("records/*"))


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {"train", "evaluate_mc"}))
def test_what_works_alone_is_refused_in_several_processes(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: the other process never comes. No framework is needed to say so, nor is the checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["localhost:1", "localhost:2"]}}')
    with pytest.raises(SystemExit) as end:
        run("tf", [command, "-F", "records", "with", "checkpoint=model.safetensors"])
    assert str(end.value).startswith(f"error: {command} runs in one process, but TF_CONFIG says that 2 work together:")
    assert not list(tmp_path.iterdir())


def test_flags_of_sacred_work_after_with(command_line: CommandLine, tmp_path: Path) -> None:
    result = command_line(*RUN, "data_path=text.txt", "-F", "records", "-l", "ERROR")
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "records" / "1" / "run.json").read_text())["status"] == "COMPLETED"


@pytest.mark.skipif(importlib.util.find_spec("pymongo") is not None, reason="pymongo is installed")
def test_an_observer_without_its_package_gets_one_sentence(command_line: CommandLine) -> None:
    result = command_line("-m", "db", *RUN, "data_path=text.txt")
    assert result.returncode == 1
    assert result.stderr == "error: -m needs pymongo, which is not installed: pip install pymongo\n"


def test_a_seed_may_have_64_bits(command_line: CommandLine) -> None:
    result = command_line(*RUN, "data_path=text.txt", "epochs=1", f"seed={2**64 - 1}")
    assert result.returncode == 0, result.stderr


def test_an_experiment_runs_from_python(tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    experiment = create_experiment("reference")
    options = {"dataset": "text", "data_path": "text.txt", "hidden_size": 4, "epochs": 1, "run": "r", "progress": False}
    run = experiment.run(named_configs=["demo"], config_updates=options)
    assert run.status == "COMPLETED"
    assert json.loads((tmp_path / "runs" / "r" / "options.json").read_text())["bptt_length"] == 50  # the recipe's


def test_a_terminal_that_knows_ascii_only_ends_no_run(shell: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    result = shell(*RUN, "data_path=text.txt")
    assert result.returncode == 0, result.stderr
    assert "bits per character" in result.stdout


def test_a_reader_that_goes_away_ends_no_run(tmp_path: Path, text_file: Path) -> None:
    words = ["with", *TINY, "data_path=text.txt", "run=r"]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "runs" / "r" / "summary.json").exists()


def test_off_a_terminal_there_is_a_line_an_epoch_and_no_bar(command_line: CommandLine) -> None:
    result = command_line(*[word for word in RUN if word != "progress=False"], "data_path=text.txt")
    assert result.returncode == 0
    assert "\r" not in result.stdout + result.stderr
    assert len([line for line in result.stdout.splitlines() if line.startswith("epoch ")]) == 2


def test_warnings_are_shown_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder(tmp_path).warnings_kept(["from before"]):
        warn("a b")
        warn("a b")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("two\nlines", UserWarning, stacklevel=1)
    assert json.loads((tmp_path / "warnings.json").read_text()) == ["from before", "a b", "UserWarning: two lines"]
    assert capsys.readouterr().err == "warning: a b\nwarning: a b\nwarning: UserWarning: two lines\n"


def test_a_part_that_is_too_short_is_found_before_training(command_line: CommandLine, tmp_path: Path) -> None:
    result = command_line(*RUN, "data_path=text.txt", "batch_size=80")
    assert result.returncode == 1
    assert "the valid part of dataset='text' is not accepted" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_a_folder_in_which_nothing_was_trained_can_be_used(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "runs" / "r").mkdir(parents=True)
    (tmp_path / "runs" / "r" / ".options.json.abc.tmp").touch()
    (tmp_path / "runs" / "r" / "options.json").write_text("{}")
    assert command_line(*RUN, "data_path=text.txt", "epochs=1").returncode == 0
    assert not list((tmp_path / "runs" / "r").glob(".*.tmp"))


def test_a_strange_name_of_a_run_costs_nothing(command_line: CommandLine, tmp_path: Path) -> None:
    result = command_line("with", *TINY, "run=a$x_{$ <b>", "data_path=text.txt")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "runs" / "a$x_{$ <b>" / "report.html").exists()
