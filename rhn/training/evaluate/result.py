"""Results of the commands that look at a checkpoint: files beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rhn.files import write_atomically
from rhn.training.report.run import write_report
from rhn.training.run.record import RunRecordError


def beside(checkpoint: str, label: str) -> Path:
    """The file that holds the result `label` of a checkpoint: best.safetensors gives best.LABEL."""
    path = Path(checkpoint)
    return path.with_name(f"{path.stem}.{label}")


def write_result(path: Path, shown: Mapping[str, str], figures: Mapping[str, Any], picture: bytes | None) -> None:
    """Write a result as path.json and its `picture` as path.png, and say so; a run's report then shows it too.

    Args:
        path: without suffix.
        shown: what the report of the run says: names and values for people.
        figures: everything, for programs.
        picture: a PNG, or None.
    """
    json_file, picture_file = (path.with_name(path.name + suffix) for suffix in (".json", ".png"))
    write_atomically(json_file, (json.dumps({"shown": shown, **figures}, indent=2) + "\n").encode())
    written = [json_file]
    if picture is not None:
        write_atomically(picture_file, picture)
        written.append(picture_file)
    with suppress(RunRecordError):  # the checkpoint has been moved out of the folder of its run
        written.append(write_report(path.parent))
    print(f"written: {', '.join(str(file) for file in written)}")
