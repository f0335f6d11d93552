"""The page of one run."""

import json
import re
from base64 import b64decode
from pathlib import Path

import pytest
from html_page import read_page
from recorded_run import CONTENTS, HISTORY, row_with

import rhn
from rhn.training.report import charts
from rhn.training.report.__main__ import main
from rhn.training.report.run import write_report
from rhn.training.run.folder import describe_environment


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
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in linked)
    assert re.findall(r"url\((?!#)|@import", (run / "report.html").read_text()) == []


def test_there_is_no_picture_file_beside_the_page(run: Path) -> None:
    write_report(run)
    assert {path.name for path in run.iterdir()} == {*CONTENTS, "report.html"}


def test_the_picture_of_a_result_is_in_the_page(run: Path) -> None:
    assert "<img" not in write_report(run).read_text()
    picture = b"\x89PNG and so on"
    (run / "best.mc-test.png").write_bytes(picture)
    page = read_page(write_report(run))
    (source,) = [value for name, value in page.attributes if name == "src" and value is not None]
    assert b64decode(source.removeprefix("data:image/png;base64,")) == picture
    (run / "best.mc-test.png").write_bytes(b"<svg>")
    assert "<img" not in write_report(run).read_text()


def test_identifiers_are_unique_and_all_are_used(run: Path) -> None:
    write_report(run)
    page = read_page(run / "report.html")
    identifiers = [value for name, value in page.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers)) > 0


def test_the_same_run_gives_the_same_page(run: Path) -> None:
    first = write_report(run).read_bytes()
    charts._drawing.cache_clear()  # it would be the same drawing
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


def test_an_epoch_without_duration_is_shown(run: Path) -> None:
    (run / "metrics.jsonl").write_text(row_with(seconds=0, waiting_seconds=0))
    assert "0.0 seconds of training" in read_page(write_report(run)).text


def test_the_options_that_differ_from_their_defaults_come_first(run: Path) -> None:
    text = read_page(write_report(run)).text
    special, default = text[text.index("Configuration") :].split("options at their defaults")
    assert "epochs" in special
    assert "hidden_size" not in special  # 830 is the default
    assert "hidden_size" in default


def test_warnings_and_changed_options_are_shown(run: Path) -> None:
    (run / "warnings.json").write_text(json.dumps(["the clock went backwards"]))
    change = {"step": 40, "option": "learning_rate", "before": 0.2, "after": 0.125}
    (run / "changes.json").write_text(json.dumps([change]))
    page = write_report(run).read_text()
    assert '<p class="warning">the clock went backwards</p>' in page
    assert "<h2>Options changed at a resume</h2>" in page
    assert "<td>learning_rate</td><td>40</td><td>0.2</td><td>0.125</td>" in page
    (run / "changes.json").write_text("[]")
    assert "Options changed at a resume" not in write_report(run).read_text()


def test_the_environment_names_backend_and_machine() -> None:
    environment = describe_environment(rhn.load_backend("reference"))
    assert environment["backend"] == "reference"
    assert {"numpy", "device", "python", "system", "processor", "cores"} <= set(environment)
    assert all(environment.values())


def test_a_single_run_gets_its_own_page(run: Path, tmp_path: Path) -> None:
    main([str(run), "--html", str(tmp_path / "page.html")])
    assert (tmp_path / "page.html").read_bytes() == write_report(run).read_bytes()
