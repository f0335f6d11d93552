"""Several runs side by side: the table and the page."""

from pathlib import Path

import pytest
from html_page import read_page
from recorded_run import make_run

from rhn.training.report.__main__ import main


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
