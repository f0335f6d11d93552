"""The command: what it runs, what it leaves, and when it fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import rhn.backend
from rhn_conformance import cli
from rhn_conformance.results import Verdict, read_jsonl
from rhn_conformance.rewritten.mutants import MUTANTS
from rhn_conformance.suite import QUICK


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


@pytest.fixture
def with_mutant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend called "broken" beside the others: the reference with t and c swapped."""
    mutant = next(m for m in MUTANTS if m.name == "t and c swapped").backend()
    mutant.name = "broken"
    load = rhn.backend.load_backend
    monkeypatch.setattr(cli, "load_backend", lambda name: mutant if name == "broken" else load(name))


def run(results: Path, *arguments: str) -> int:
    return cli.main(["run", "--results", str(results), *arguments])


def test_a_good_backend_leaves_results_and_success(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(results, "--backend", "reference", "-k", "tied") == 0
    runs, records = read_jsonl(results)
    assert runs[0].versions["reference"]["device"] == "cpu"
    assert runs[0].machine.keys() == {"processor", "cores", "system", "python", "numpy"}
    assert {r.case for r in records} >= {"tied", "weight-decay-tied", "authors-tf_nodrop_untied_float64"}
    assert {r.dtype for r in records} == {"float64", "float32"}
    assert {r.against for r in records} == {"reference", "authors"}
    assert {r.verdict for r in records} == {Verdict.PASSED}
    assert all(r.run == runs[0].run for r in records)
    assert "passed" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.usefixtures("with_mutant")
def test_a_failure_names_clause_and_tensor_and_fails(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(
            results,
            "--backend",
            "broken",
            "--backend",
            "reference",
            "-k",
            "shortest",
            "--dtype",
            "float64",
            "--jobs",
            "1",
        )
        == 1
    )
    line = next(line for line in capsys.readouterr().out.splitlines() if "failed:" in line)
    assert line.startswith("    failed: broken float64 shortest/forward against reference (SPEC.md 1.2, 2.1, 2.2, 2.4")
    assert "logits" in line


@pytest.mark.usefixtures("with_mutant")
def test_pairs_are_compared(results: Path) -> None:
    """Here in a case whose right answers are the authors', so that the reference is a backend like any other."""
    run(results, "--backend", "broken", "--backend", "reference", "-k", "tf_tiny_float64", "--jobs", "1")
    pairs = [r for r in read_jsonl(results)[1] if r.against not in ("reference", "authors") or r.against == "reference"]
    assert {(r.backend, r.against, r.verdict) for r in pairs} == {("broken", "reference", Verdict.FAILED)}
    assert all(len(r.errors) == 1 for r in pairs)


@pytest.mark.usefixtures("with_mutant")
def test_a_listed_failure_succeeds_and_is_no_pass(results: Path, tmp_path: Path) -> None:
    excuses = tmp_path / "excuses.toml"
    excuses.write_text(
        "".join(
            f'[[expected_failure]]\ncase = "shortest"\ncheck = "{check}"\nreason = "t and c are swapped"\n'
            for check in ("forward", "loss", "evaluation", "gradients", "hand-over", "training")
        )
    )
    arguments = ("--backend", "broken", "-k", "shortest", "--dtype", "float64", "--expected-failures", str(excuses))
    assert run(results, *arguments) == 0
    verdicts = [r.verdict for r in read_jsonl(results)[1]]
    assert (verdicts.count(Verdict.PASSED), verdicts.count(Verdict.EXPECTED_FAILURE)) == (1, 6)  # parameters pass


def test_an_unexpected_pass_and_a_stale_entry_fail(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    excuses = tmp_path / "excuses.toml"
    arguments = ("--backend", "reference", "-k", "shortest", "--expected-failures", str(excuses))
    excuses.write_text('[[expected_failure]]\ncase = "shortest"\ncheck = "loss"\nreason = "an old one"\n')
    assert run(results, *arguments) == 1
    assert "unexpected pass: reference float64 shortest/loss" in capsys.readouterr().out
    excuses.write_text('[[expected_failure]]\ncase = "no-such-case"\nreason = "an old one"\n')
    assert run(results, *arguments) == 1
    assert "no-such-case/* of reference matches nothing: remove it" in capsys.readouterr().out


def test_processes_give_the_same_results_as_one(results: Path) -> None:
    arguments = ("--backend", "reference", "-k", "mask-")
    assert run(results, *arguments, "--jobs", "1") == 0
    one = [replace(r, run="", seconds=0.0) for r in read_jsonl(results)[1]]
    assert run(results, *arguments, "--jobs", "2") == 0
    runs, several = read_jsonl(results)
    several = [replace(r, run="", seconds=0.0) for r in several]
    assert sorted(several, key=repr) == sorted(one, key=repr)
    assert runs[0].versions["reference"]["device"] == "cpu"


def test_a_process_that_dies_fails_its_case_and_no_other(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "dying", "dying_backend:DyingBackend")
    (tmp_path / "dying_backend.py").write_text(
        "import os\n"
        "from rhn.reference_backend import ReferenceBackend\n"
        "class DyingBackend(ReferenceBackend):\n"
        "    name = 'dying'\n"
        "    def build(self, config, *arguments, **options):\n"
        "        if config.num_layers == 3: os._exit(41)\n"
        "        return super().build(config, *arguments, **options)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert run(results, "--backend", "dying", "-k", "2.7", "--jobs", "2") == 1
    failed = [r for r in read_jsonl(results)[1] if r.verdict is Verdict.FAILED]
    assert {(r.case, r.dtype) for r in failed} == {("three-layers", "float64"), ("three-layers", "float32")}
    assert all("ended with exit code 41" in r.message for r in failed)
    passed = {r.case for r in read_jsonl(results)[1] if r.verdict is Verdict.PASSED}
    assert {"two-layers", "masks-two-layers"} <= passed


def test_the_cases_of_a_quick_run_are_compiled_as_in_a_training(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a backend that cannot build what it is to compile quickly."""
    install(tmp_path, "compiling", "compiling_backend:CompilingBackend")
    (tmp_path / "compiling_backend.py").write_text(
        "from rhn.reference_backend import ReferenceBackend\n"
        "class CompilingBackend(ReferenceBackend):\n"
        "    name = 'compiling'\n"
        "    def compile_quickly(self):\n"
        "        self.build = None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert run(results, "--backend", "compiling", "-k", "initial-state", "--jobs", "2") == 1
    done = {(r.case, r.dtype): r.verdict is Verdict.PASSED for r in read_jsonl(results)[1]}
    assert len(done) > 1
    assert [one for one, passed in done.items() if passed] == [("initial-state", "float64")]


def install(folder: Path, name: str, backend: str) -> None:
    """What `pip install` of a backend's package leaves behind in `folder`."""
    metadata = folder / f"{name}-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[rhn.backends]\n{name} = {backend}\n")


def test_a_backend_that_cannot_be_loaded_is_an_error(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, "absent", "a_module_that_is_not_there:Backend")
    monkeypatch.syspath_prepend(tmp_path)
    for jobs in ("1", "2"):
        assert run(results, "--backend", "absent", "-k", "tied", "--jobs", jobs) == 2
        assert "backend 'absent' needs a_module_that_is_not_there, which is not installed" in capsys.readouterr().err


def test_a_backend_without_layers_is_not_asked_and_that_is_said(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, "modest", "modest_backend:Modest")
    (tmp_path / "modest_backend.py").write_text(
        "from rhn.reference_backend import ReferenceBackend\n"
        "class Modest:\n"
        "    name = 'modest'\n"
        "    build = ReferenceBackend.build\n"
        "    describe = ReferenceBackend.describe\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert run(results, "--backend", "modest", "--backend", "reference", "-k", "layer-two", "--jobs", "1") == 1
    printed = capsys.readouterr().out
    assert "modest is not asked about layers on their own: it has no method build_layer" in printed
    assert "nothing ran on modest" in printed
    assert run(results, "--backend", "modest", "--backend", "reference", "-k", "two-layers", "--jobs", "2") == 0
    assert cli.main(["report", str(results), "--output", str(tmp_path)]) == 0
    for page in ("CONFORMANCE.md", "conformance.html"):
        assert "layers on their own: it has no method build" in (tmp_path / page).read_text().replace("\\", "")


def test_quick_runs_few_cases_in_few_dtypes(results: Path) -> None:
    assert run(results, "--backend", "reference", "--quick") == 0
    done = {(r.case, r.dtype) for r in read_jsonl(results)[1]}
    assert done == {(case, dtype) for case, dtypes in QUICK.items() for dtype in dtypes}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backend", "nobody"), "backend='nobody' is not known"),
        (("--backend", "reference", "-k", "nothing like it"), "selects nothing"),
        (("--backend", "reference", "--expected-failures", "gone.toml"), "gone.toml does not exist"),
    ],
)
def test_what_cannot_run_is_an_error(
    results: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(results, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_device_that_is_not_there_fails_every_check(results: Path) -> None:
    assert run(results, "--backend", "reference", "-k", "shortest", "--device", "gpu") == 1
    assert {r.verdict for r in read_jsonl(results)[1]} == {Verdict.FAILED}


def test_no_backend_is_an_error(results: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(results)


def test_explore_and_report(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explore", "--backend", "reference", "--examples", "2"]) == 0
    run(results, "--backend", "reference", "-k", "shortest")
    assert cli.main(["report", str(results), "--output", str(tmp_path)]) == 0
    written = capsys.readouterr().out.splitlines()[-4:]
    expected = ["CONFORMANCE.md", "conformance.html", "reference.json", "reference.svg"]
    assert [Path(line).name for line in written] == expected
    assert all(Path(line).is_file() for line in written)


def test_a_file_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text('{"record": "result", "case": "plain"}\n')
    assert cli.main(["report", str(path)]) == 2
    assert "line 1 of other.jsonl is not a conformance record" in capsys.readouterr().err
