"""benchmarks/gpu.sh from end to end on a CPU: tiny sizes, from a wheel, with every record that it promises."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"

pytestmark = pytest.mark.skipif(shutil.which("timeout") is None, reason="the script needs the command timeout")


def run(*options: object, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": python}
    environment.pop("TRITON_INTERPRET", None)  # minutes; what the kernels compute in it, test_triton.py tests
    return subprocess.run([SCRIPT, *map(str, options)], capture_output=True, text=True, env=environment)


def make_wheel(folder: Path) -> Path:
    """The packages of this repository and what the installed one says of itself: building one takes a network."""
    wheel = folder / "recurrent_highway_networks-0-py3-none-any.whl"
    installed = importlib.metadata.distribution("recurrent-highway-networks")
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("METADATA", "entry_points.txt"):
            archive.writestr(f"recurrent_highway_networks-0.dist-info/{name}", installed.read_text(name) or "")
        for source in (ROOT, ROOT / "datasets", ROOT / "conformance"):
            for package in source.glob("rhn*"):
                for file in filter(Path.is_file, package.rglob("*")):
                    archive.write(file, file.relative_to(source))
    return wheel


def test_rehearsal(tmp_path: Path) -> None:
    options = "--device", "cpu", "--backends", "torch", "--results", tmp_path / "records"
    finished = run("--wheel", make_wheel(tmp_path), *options)
    assert finished.returncode == 0, finished.stdout + finished.stderr

    def rows(name: str) -> list[dict]:
        return [json.loads(line) for line in (tmp_path / "records" / name).read_text().splitlines()]

    parts = {row["part"]: row["status"] for row in rows("gpu_parts.jsonl")}
    assert parts == dict.fromkeys(["device_torch", "tests", "parity", "preflight_torch", "forms"], 0)
    parity = rows("gpu_parity.jsonl")
    assert {row["form"] for row in parity} >= {"plain", "eager", "graph"}
    assert max(row["batch_size"] * row["length"] for row in parity) > 1024  # the backward goes in slices
    assert all(row["is_right"] for row in [*parity, *rows("gpu_preflight_torch.jsonl")])
    forms = json.loads((tmp_path / "records" / "gpu_forms.json").read_text())
    assert set(forms["shapes"]["tiny"]["float32"]) == {"eager", "graph", "naive", "lstm", "products"}
    assert "| float32 | graph |" in render([("gpu_forms.json", forms)])


def render(records: list) -> str:
    spec = importlib.util.spec_from_file_location("render", ROOT / "benchmarks" / "render.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.page(records)


def test_what_cannot_be_imported_is_not_called_a_missing_gpu(tmp_path: Path) -> None:
    options = "--backends", "torch", "--results", tmp_path
    broken = run(*options, python="false")
    assert broken.returncode == 2
    assert "torch cannot be imported, which says nothing about the GPU" in broken.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu(tmp_path: Path) -> None:
    absent = run("--backends", "torch", "--results", tmp_path)
    assert absent.returncode == 2
    assert "torch sees no GPU here" in absent.stderr


def test_limits_leave_it_under_nine_minutes() -> None:
    text = SCRIPT.read_text()
    limits = [2 * 30, 90, 155, 30 + 75, 115]
    for written in (
        'part "device_$1" 30 ',
        "part tests 90 ",
        "part parity 155 ",
        "limit=30\n",
        "|| limit=75 ",
        "forms 115 ",
    ):
        assert written in text
    assert sum(limits) + 2 * 7 <= 540


def test_only_forms_that_were_right_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from gpu_forms import forms_to_time

    record = tmp_path / "parity.jsonl"
    rows = [
        ("eager", "float32", True),
        ("graph", "float32", True),
        ("graph", "float32", False),
        ("graph", "tf32", True),
    ]
    names = "form", "precision", "is_right"
    record.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    assert forms_to_time("cpu", ["float32", "tf32"], record) == [("eager", "float32"), ("graph", "tf32")]
    assert capsys.readouterr().out.splitlines() == [
        "graph float32 is left out: it was wrong",
        "eager tf32 is left out: it has not been checked",
    ]
