"""A damaged run folder is refused with one sentence that names the file."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded_run import CONTENTS, HISTORY, SUMMARY, make_run, row_with

from rhn.training.report.comparison import comparison_page, comparison_table
from rhn.training.report.run import run_page, write_report
from rhn.training.run.record import RunRecordError, read_run


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


def test_an_empty_folder_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunRecordError, match="is not the folder of a run"):
        read_run(tmp_path)


def test_a_bad_folder_ends_the_command_with_one_sentence(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "rhn.training.report", str(tmp_path / "nowhere")]
    result = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "nowhere is not the folder of a run" in result.stderr
    assert "Traceback" not in result.stderr
