"""The command: what it runs, what it leaves, and when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

import rhn.backend
from rhn_conformance import cli
from rhn_conformance.results import Verdict, read_jsonl
from rhn_conformance.rewritten.mutants import MUTANTS


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
    assert run(results, "--backend", "broken", "--backend", "reference", "-k", "shortest", "--dtype", "float64") == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if "failed:" in line)
    assert line.startswith("    failed: broken float64 shortest/forward against reference (SPEC.md 1.2, 2.1, 2.2, 2.4")
    assert "logits" in line


@pytest.mark.usefixtures("with_mutant")
def test_pairs_are_compared(results: Path) -> None:
    """Here in a case whose right answers are the authors', so that the reference is a backend like any other."""
    run(results, "--backend", "broken", "--backend", "reference", "-k", "tf_tiny_float64")
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
    written = capsys.readouterr().out.splitlines()[-3:]
    assert [Path(line).name for line in written] == ["CONFORMANCE.md", "conformance.html", "reference.json"]
    assert all(Path(line).is_file() for line in written)


def test_a_file_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text('{"record": "result", "case": "plain"}\n')
    assert cli.main(["report", str(path)]) == 2
    assert "line 1 of other.jsonl is not a conformance record" in capsys.readouterr().err
