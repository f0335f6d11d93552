import json
import math
import re
import subprocess
import sys
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rhn
from rhn.text import one_line
from rhn.training.report import charts
from rhn.training.report.__main__ import main
from rhn.training.report.comparison import comparison_page, comparison_table
from rhn.training.report.run import run_page, write_report
from rhn.training.run.folder import describe_environment
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
        if tag not in ("meta", "img"):
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


def row_with(**changes: Any) -> str:
    return json.dumps({**HISTORY[0], **changes}) + "\n"


def summary_with(**changes: Any) -> str:
    return json.dumps({**SUMMARY, **changes})


def without(name: str, row: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in row.items() if key != name})


DAMAGED = [
    *((name, text) for name in ("options.json", "environment.json", "summary.json") for text in ("[]", "3", "null")),
    *((name, '{"epoch": ') for name in CONTENTS if name != "sample.txt"),
    *((name, "[" * 100_000) for name in CONTENTS if name != "sample.txt"),
    *((name, "") for name in ("options.json", "environment.json", "summary.json", "best.mc-test.json")),
    ("options.json", '{"dataset": ["ptb"]}'),
    ("options.json", '{"level": "letter"}'),
    ("options.json", '{"hidden_size": ' + "9" * 5000 + "}"),
    ("metrics.jsonl", "[]\n"),
    ("metrics.jsonl", "\n"),
    ("metrics.jsonl", row_with() + "\n" + row_with()),
    *(
        ("metrics.jsonl", without(name, HISTORY[0]))
        for name in HISTORY[0]
        if name not in {"step", "waiting_seconds"} and "tokens" not in name
    ),
    ("metrics.jsonl", without("tokens_per_second", HISTORY[0])),
    *(("metrics.jsonl", row_with(epoch=epoch)) for epoch in (0, 1.5, True, "1", None, 10**300)),
    *(("metrics.jsonl", row_with(seconds=seconds)) for seconds in (-1, "9", math.nan, math.inf, 10**400, [1])),
    *(("metrics.jsonl", row_with(valid_nats=nats)) for nats in ("9", None, True, 10**400, {})),
    ("metrics.jsonl", row_with(waiting_seconds="none")),
    *(("summary.json", without(name, SUMMARY)) for name in ("parameters", "valid", "test", "order_two_baseline")),
    *(("summary.json", summary_with(test=test)) for test in (None, 4.5, [], {}, {"nats": 1.0, "tokens": 5})),
    ("summary.json", summary_with(parameters="many")),
    ("summary.json", summary_with(order_two_baseline="high")),
    ("best.mc-test.json", '{"shown": ["perplexity"]}'),
    *(
        ("changes.json", text)
        for text in ("{}", "[1]", '[{"step": 3}]', '[{"step": -1, "option": "a", "before": 1, "after": 2}]')
    ),
    *(("warnings.json", text) for text in ("{}", "[1]", '"text"')),
]


@pytest.mark.parametrize(("name", "text"), DAMAGED, ids=[f"{name}: {text[:60]}" for name, text in DAMAGED])
def test_a_damaged_file_is_named(run: Path, name: str, text: str) -> None:
    (run / name).write_text(text)
    with pytest.raises(RunRecordError, match=f"{name} is damaged: ") as refused:
        write_report(run)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("name", list(CONTENTS))
def test_a_file_that_is_not_utf_8_is_named(run: Path, name: str) -> None:
    (run / name).write_bytes(b"\xff\xfe")
    with pytest.raises(RunRecordError, match=f"{name} is damaged: "):
        write_report(run)


def test_a_message_says_where_and_what(run: Path) -> None:
    (run / "metrics.jsonl").write_text(row_with() + row_with(seconds=-3))
    with pytest.raises(RunRecordError, match=r"line 2: seconds=-3 is not accepted: expected a number of at least 0"):
        read_run(run)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from([10**400, 1e308, -1e308]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_the_files_say_there_is_a_page_or_one_sentence(tmp_path: Path, data: st.DataObject) -> None:
    """Any value in any place of any file."""
    folder = tmp_path / "run"
    if not folder.exists():
        make_run(folder)
    name = data.draw(st.sampled_from(["options.json", "environment.json", "metrics.jsonl", "summary.json"]))
    content = json.loads(CONTENTS[name].splitlines()[0])
    place, key = content, data.draw(st.sampled_from(list(content)))
    if isinstance(place[key], dict) and data.draw(st.booleans()):
        place, key = place[key], data.draw(st.sampled_from(list(place[key])))
    place[key] = data.draw(JSON)
    (folder / name).write_text(json.dumps(content))
    try:
        run = read_run(folder)
    except RunRecordError:
        return
    finally:
        (folder / name).write_text(CONTENTS[name])
    assert len(run_page(run)) > 1000
    assert len(comparison_page([run])) > 1000
    comparison_table([run]).encode()


def test_an_epoch_without_duration_is_shown(run: Path) -> None:
    (run / "metrics.jsonl").write_text(row_with(seconds=0, waiting_seconds=0))
    assert "0.0 seconds of training" in read_page(write_report(run)).text


STRANGE = [
    "a$x_{$",
    "line\nline",
    "<!--<script>",
    "</pre></style>",
    "\x1b[31m\x1b]0;title\x07",
    "{{ 7 * 7 }}",
    "a|b\\|c",
    "`*_[x](y)",
]


@pytest.mark.parametrize("text", STRANGE)
def test_a_strange_name_is_harmless_everywhere(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = text.replace("/", "\N{FRACTION SLASH}")
    folder = make_run(tmp_path / name, run=name, dataset=text)
    (folder / "sample.txt").write_text(text)
    (folder / "environment.json").write_text(json.dumps({"backend": text, text: text}))
    (folder / "best.mc-test.json").write_text(json.dumps({"shown": {text: text}}))
    (folder / "warnings.json").write_text(json.dumps([text]))
    (folder / "changes.json").write_text(json.dumps([{"step": 1, "option": text, "before": text, "after": text}]))
    page = read_page(write_report(folder))
    assert page.text.count(text) >= 8  # two warnings fewer, if the name is shown otherwise
    assert "script" not in page.elements
    main([str(folder), str(folder), "--html", str(tmp_path / "both.html")])
    assert one_line(name) in read_page(tmp_path / "both.html").text
    table = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in table)
    assert len([line for line in table if line.startswith("|")]) == 4
    assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table[:4]}) == 1


def test_a_name_that_is_not_utf_8_is_harmless(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path / "name\udcff", dataset="data\udcff")
    (folder / "warnings.json").write_text(json.dumps(["warned\ud800"]))
    text = read_page(write_report(folder)).text
    assert r"name\udcff" in text
    assert r"warned\ud800" in text
    main([str(folder), "--html", str(tmp_path / "page.html")])
    assert r"name\\udcff" in capsys.readouterr().out


def test_a_bad_folder_is_named_without_control(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"nowhere\\x1b\[31m is not the folder of a run"):
        main([str(tmp_path / "nowhere\x1b[31m")])


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


def test_the_environment_names_backend_and_machine() -> None:
    environment = describe_environment(rhn.load_backend("reference"))
    assert environment["backend"] == "reference"
    assert {"numpy", "device", "python", "system", "processor", "cores"} <= set(environment)
    assert all(environment.values())


def test_a_single_run_gets_its_own_page(run: Path, tmp_path: Path) -> None:
    main([str(run), "--html", str(tmp_path / "page.html")])
    assert (tmp_path / "page.html").read_bytes() == write_report(run).read_bytes()
