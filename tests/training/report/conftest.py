from pathlib import Path

import pytest
from recorded_run import make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "finished")
