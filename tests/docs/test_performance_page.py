"""docs/PERFORMANCE.md says what the committed records say."""

import subprocess
import sys
from pathlib import Path

RENDER = Path(__file__).parents[2] / "benchmarks" / "render.py"


def test_the_page_is_rendered_from_the_records() -> None:
    result = subprocess.run([sys.executable, RENDER, "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
