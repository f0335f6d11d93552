"""The report: Markdown, badges, and the page in a real browser."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rhn.compare import tensor_error
from rhn_conformance.report import write_report
from rhn_conformance.report.badge import badge
from rhn_conformance.results import Result, ResultWriter, Run, Verdict, new_run, read_jsonl

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def result(case: str = "tied", backend: str = "torch", actual: float = 2.0, **changes: Any) -> Result:
    error = tensor_error("logits", [1.0, actual], [1.0, 2.0], "float64", 1e-10)
    made = Result(
        run="r1",
        case=case,
        check="forward",
        clauses=("2.9",),
        backend=backend,
        device="default",
        dtype="float64",
        against="reference",
        verdict=Verdict.PASSED if error.within_tolerance else Verdict.FAILED,
        errors=(error,),
        message="" if error.within_tolerance else f"{error} </script>",
    )
    return replace(made, **changes)


RESULTS = [
    result("tied", "torch"),
    result("plain", "torch", clauses=("3.3",)),
    result("tied", "mine", actual=math.nan),
    result("plain", "mine", actual=2.5, clauses=("3.3",), verdict=Verdict.EXPECTED_FAILURE, message="not yet"),
]
RUN = replace(new_run({}), run="r1", versions={"torch": {"torch": "2.13.0"}, "mine": {"mine": "0.1"}})


def test_results_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write(path, RESULTS)
    runs, results = read_jsonl(path)
    assert runs == [RUN]
    assert [replace(r, errors=()) for r in results] == [replace(r, errors=()) for r in RESULTS]
    assert [repr(r.errors) for r in results] == [repr(r.errors) for r in RESULTS]  # as text: a NaN is not itself


def write(path: Path, results: list[Result]) -> None:
    with path.open("w") as file:
        writer = ResultWriter(file, RUN)
        for result in results:
            writer.result(result)


def test_a_run_that_was_cut_off_has_told_what_it_found(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write(path, RESULTS)
    path.write_text(path.read_text()[:-30])
    assert [r.case for r in read_jsonl(path)[1]] == [r.case for r in RESULTS[:-1]]


def test_markdown_names_the_slowest_cases(tmp_path: Path) -> None:
    timed = [result(f"case-{n}", seconds=float(n), check=check) for n in range(12) for check in ("forward", "loss")]
    write_report([RUN], timed, tmp_path)
    text = (tmp_path / "CONFORMANCE.md").read_text()
    slowest = text[text.index("## Slowest") :].splitlines()
    assert len(slowest) == 2 + 2 + 10
    assert slowest[4] == "| case-11 | torch | 22.0 |"
    assert slowest[-1] == "| case-2 | torch | 4.0 |"


def test_markdown_has_machine_verdicts_clauses_and_reasons(tmp_path: Path) -> None:
    write_report([RUN], RESULTS, tmp_path)
    text = (tmp_path / "CONFORMANCE.md").read_text()
    assert RUN.machine["processor"] in text
    assert "  * torch: torch 2.13.0" in text
    assert "| torch | default | float64 | 2 | 0 | 0 | 0 |" in text
    assert "| mine | default | float64 | 0 | 1 | 1 | not finite |" in text
    assert "| 2.9 | 0 | not finite |" in text
    assert "* failed: mine float64 tied/forward against reference (SPEC.md 2.9): logits[1] is nan" in text
    assert "* expected failure: mine float64 plain/forward against reference (SPEC.md 3.3): not yet" in text


def test_badges_do_not_count_an_excuse_as_a_pass() -> None:
    assert badge("torch", RESULTS)["message"] == "2 of 2 checks"
    assert badge("torch", RESULTS)["color"] == "brightgreen"
    assert badge("mine", RESULTS)["message"] == "0 of 2 checks, 1 known failures"
    assert badge("mine", RESULTS)["color"] == "red"
    assert badge("nobody", RESULTS)["color"] == "red"


def test_the_last_of_two_runs_counts(tmp_path: Path) -> None:
    later: Run = replace(RUN, run="r2", date="later")
    write_report([RUN, later], [*RESULTS, replace(result("tied", "mine"), run="r2")], tmp_path)
    assert json.loads((tmp_path / "badges" / "mine.json").read_text())["message"].startswith("1 of 2")


def test_no_results_are_no_report(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no results"):
        write_report([], [], tmp_path)


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    write_report([RUN], RESULTS, tmp_path)
    text = (tmp_path / "conformance.html").read_text()
    assert not re.search(r"""(src|href)=|@import|url\(|https?://""", text)
    assert text.count("</script>") == 2  # the one in a message is escaped


HOSTILE = "a|b\n<!--<script>alert(1)</script> `x` *y* [z](http://example.org)"


def test_no_name_leaves_its_row_its_file_or_its_folder(tmp_path: Path) -> None:
    results = [result("tied", name) for name in ("../../escaped", "..", HOSTILE)]
    results.append(result(HOSTILE, "mine", actual=2.5, message=HOSTILE))
    run = replace(RUN, versions={HOSTILE: {HOSTILE: HOSTILE}})
    folder = tmp_path / "deep" / "report"
    write_report([run], results, folder)
    assert {path for path in tmp_path.rglob("*.json") if path.parent != folder / "badges"} == set()
    assert len(list((folder / "badges").iterdir())) == 2 * 4  # as data, and drawn
    text = (folder / "CONFORMANCE.md").read_text()
    assert "<" not in text
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {10, 6}  # of both tables


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_no_text_empties_the_page_or_becomes_markup(tmp_path: Path) -> None:
    write_report([RUN], [result(HOSTILE, "mine", actual=2.5, message=HOSTILE)], tmp_path)
    page = in_browser(tmp_path / "conformance.html", "", tmp_path)
    cells = re.findall(r'<button[^>]*class="cell [^"]*"[^>]*aria-label="([^"]*)"', page)
    assert len(cells) == 1
    assert "alert(1)" in cells[0]


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    write_report([RUN], RESULTS, tmp_path)
    page = in_browser(tmp_path / "conformance.html", "#tied/mine/float64", tmp_path)
    cells = re.findall(r'<button[^>]*class="cell ([^"]*)"[^>]*aria-label="([^"]*)"[^>]*>(.*?)</button>', page)
    assert sorted(cells) == [
        ("bad chosen", "tied, mine float64: failed", "✗"),
        ("excused", "plain, mine float64: expected failure", "✗"),
        ("u0", "plain, torch float64: 0 ULP", "0"),
        ("u0", "tied, torch float64: 0 ULP", "0"),
    ]
    detail = html.unescape(re.search(r'<aside id="detail".*?</aside>', page, re.DOTALL).group())
    assert 'class="open"' in detail
    assert "<td>logits</td><td>not finite</td><td>not finite</td><td>not finite</td>" in detail
    assert "logits[1] is nan, expected 2" in detail
    assert "2 passed, 0 failed" in page
    assert "0 passed, 1 failed, 1 expected to fail" in page
    assert RUN.machine["processor"] in page


def in_browser(path: Path, address: str, folder: Path) -> str:
    """The document as it stands after its script has run."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-sync", f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    command = [str(CHROMIUM), *options, path.as_uri() + address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
