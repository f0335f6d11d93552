"""A strange name or text is harmless in a page, in a table and on a terminal."""

import json
import re
from pathlib import Path

import pytest
from html_page import read_page
from recorded_run import make_run

from rhn.text import one_line
from rhn.training.report.__main__ import main
from rhn.training.report.run import write_report

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
