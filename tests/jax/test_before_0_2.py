from pathlib import Path

import pytest
from before_0_2 import check_runs_of_version_0_1


def test_runs_of_version_0_1_score_and_resume_as_they_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_runs_of_version_0_1("jax", tmp_path, monkeypatch, capsys)
