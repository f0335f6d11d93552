"""Results of the commands that look at a checkpoint: files beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rhn.spec.checkpoint import write_atomically


def beside(checkpoint: str, label: str) -> Path:
    """The file that holds the result `label` of a checkpoint: best.safetensors gives best.LABEL."""
    path = Path(checkpoint)
    return path.with_name(f"{path.stem}.{label}")


def write_result(path: Path, figures: Mapping[str, Any], picture: bytes) -> None:
    """Write `figures` as path.json and `picture` as path.png, and say so."""
    json_file, picture_file = (path.with_name(path.name + suffix) for suffix in (".json", ".png"))
    write_atomically(json_file, (json.dumps(figures, indent=2) + "\n").encode())
    write_atomically(picture_file, picture)
    print(f"written: {json_file}, {picture_file}")
