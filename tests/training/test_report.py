import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rhn.training.environment import describe_environment

import rhn
from rhn.training.report.__main__ import learning_curves, main, write_report
from rhn.training.run.record import RunRecordError, read_run

OPTIONS = {
    "dataset": "ptb",
    "level": None,
    "hidden_size": 830,
    "recurrence_depth": 10,
    "num_layers": 1,
    "embedding_size": None,
    "tie_weights": True,
    "couple_gates": True,
    "activation": "tanh",
    "epochs": 3,
    "run": "<script>alert(1)</script>",
}
HISTORY = [
    {
        "epoch": epoch,
        "step": 1327 * epoch,
        "learning_rate": 0.2 / epoch,
        "train_nats": math.log(train),
        "valid_nats": math.log(valid),
        "test_nats": math.log(valid - 2),
        "valid_tokens": 73_500,
        "test_tokens": 81_900,
        "gradient_norm": 5.0 + epoch,
        "tokens_per_second": 80_000.0 + epoch,
        "seconds": 1300.0,
        "waiting_seconds": 2.6,
    }
    for epoch, train, valid in ((1, 900, 500), (2, 200, 150), (3, 110, 155))
]
SUMMARY = {
    "best_epoch": 2,
    "parameters": 23_482_400,
    "metric": "perplexity",
    "valid": {"nats": math.log(149), "standard_error": 0.01, "tokens": 73_759, "level": "word", "value": 149.0},
    "test": {"nats": math.log(147), "standard_error": math.nan, "tokens": 82_429, "level": "word", "value": 147.0},
    "order_two_baseline": None,
}
ENVIRONMENT = {"backend": "torch", "torch": "2.13.0", "device": "NVIDIA H200"}
CONTENTS = {
    "options.json": json.dumps(OPTIONS),
    "environment.json": json.dumps(ENVIRONMENT),
    "metrics.jsonl": "".join(json.dumps(row) + "\n" for row in HISTORY),
    "summary.json": json.dumps(SUMMARY),
    "sample.txt": "the <unk> of N & more\n",
    "best.mc-test.json": json.dumps({"shown": {"test (batch 1, MC dropout)": "perplexity 143.5 ± 1.4"}, "samples": 9}),
}


def make_run(folder: Path, **changes: Any) -> Path:
    """A run folder; `changes` replace options."""
    folder.mkdir()
    for name, text in CONTENTS.items():
        (folder / name).write_text(text)
    (folder / "options.json").write_text(json.dumps({**OPTIONS, **changes}))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "finished")


class Page(HTMLParser):
    """The text of a page, its links and its elements; refuses elements that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attributes
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.text += data


def read_page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_of_a_finished_run_shows_everything(run: Path) -> None:
    report = write_report(run)
    assert report == run / "report.html"
    page = read_page(report)
    for shown in ("147.0", "149.0", "± 1.5 standard error", "82,429 tokens", "23,482,400", "66.0", "68.3"):  # figures
        assert shown in page.text
    for shown in (
        "NVIDIA H200",
        "recurrence_depth",
        "<script>alert(1)</script>",
        "the <unk> of N & more",
        "80,002",
        "143.5 ± 1.4",
        "0.20% waiting",
    ):
        assert shown in page.text
    assert "not finished" not in page.text
    assert page.elements.count("svg") == 4
    assert "script" not in page.elements


def test_nothing_is_loaded_from_elsewhere(run: Path) -> None:
    write_report(run)
    page = read_page(run / "report.html")
    linked = [value or "" for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert linked
    assert all(link.startswith("#") for link in linked)
    assert re.findall(r"url\((?!#)|@import", (run / "report.html").read_text()) == []


def test_identifiers_are_unique_and_all_are_used(run: Path) -> None:
    write_report(run)
    page = read_page(run / "report.html")
    identifiers = [value for name, value in page.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers)) > 0


def test_the_same_run_gives_the_same_page(run: Path) -> None:
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


@pytest.mark.parametrize("name", [name for name in CONTENTS if not name.startswith("best.")])
def test_a_file_that_is_missing_is_said_to_be(run: Path, name: str) -> None:
    (run / name).unlink()
    text = read_page(write_report(run)).text
    assert (f"{name} is missing" in text) == (name != "summary.json")
    assert ("has not finished" in text) == (name == "summary.json")


def test_an_interrupted_run_shows_how_far_it_came(run: Path) -> None:
    (run / "summary.json").unlink()
    (run / "sample.txt").unlink()
    (run / "metrics.jsonl").write_text(json.dumps(HISTORY[0]) + "\n")
    text = read_page(write_report(run)).text
    assert "epochs done: 1 of 3" in text
    assert "498.0" in text  # test, after the only epoch


def test_an_infinite_perplexity_is_drawn_around(run: Path) -> None:
    rows = [{**HISTORY[0], "train_nats": 800.0}, *HISTORY[1:]]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "inf" in read_page(write_report(run)).text


@pytest.mark.parametrize("name", ["options.json", "metrics.jsonl"])
def test_a_damaged_file_is_named(run: Path, name: str) -> None:
    (run / name).write_text('{"epoch": ')
    with pytest.raises(RunRecordError, match=f"{name} is damaged"):
        write_report(run)


def test_an_empty_folder_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunRecordError, match="is not the folder of a run"):
        read_run(tmp_path)


def test_the_table_stands_beside_the_paper(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted = make_run(tmp_path / "interrupted", recurrence_depth=9)
    (interrupted / "summary.json").unlink()
    main([str(run), str(interrupted)])
    lines = capsys.readouterr().out.splitlines()
    header, rule, first, second = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[:4])
    assert set(rule) == {"---"}
    ours, other = dict(zip(header, first, strict=True)), dict(zip(header, second, strict=True))
    assert (ours["run"], ours["backend"], ours["device"]) == ("finished", "torch", "NVIDIA H200")
    assert (ours["valid"], ours["valid, paper"]) == ("149.0", "68.3")
    assert (ours["test"], ours["test, paper"]) == ("147.0", "66.0")
    assert (ours["parameters"], ours["parameters, paper"]) == ("23,482,400", "23,482,000")
    assert (other["run"], other["test"], other["test, paper"]) == ("interrupted", "148.0†", "-")
    assert any(line.startswith("† The run has not finished") for line in lines)


def test_the_comparison_page_groups_runs_by_their_data(run: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "same data", recurrence_depth=9)
    make_run(tmp_path / "other data", dataset="pydoc")
    page_file, table_file = tmp_path / "page.html", tmp_path / "table.md"
    folders = [str(tmp_path / name) for name in ("finished", "same data", "other data")]
    main([*folders, "--html", str(page_file), "--markdown", str(table_file)])
    page = read_page(page_file)
    assert "Curves, ptb" in page.text
    assert "Curves, pydoc" in page.text
    assert page.elements.count("svg") == 8
    assert table_file.read_text().count("\n| ") == 4


def test_a_bad_folder_ends_the_command_with_one_sentence(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "rhn.training.report", str(tmp_path / "nowhere")]
    result = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "nowhere is not the folder of a run" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("level", ["word", "byte"])
def test_the_picture_of_the_curves_is_a_png(level: str) -> None:
    assert learning_curves(HISTORY, level, "a run").startswith(b"\x89PNG")


def test_the_environment_names_backend_and_machine() -> None:
    environment = describe_environment(rhn.load_backend("reference"))
    assert environment["backend"] == "reference"
    assert {"numpy", "device", "python", "system", "processor", "cores"} <= set(environment)
    assert all(environment.values())


def test_a_single_run_gets_its_own_page(run: Path, tmp_path: Path) -> None:
    main([str(run), "--html", str(tmp_path / "page.html")])
    assert (tmp_path / "page.html").read_bytes() == write_report(run).read_bytes()
