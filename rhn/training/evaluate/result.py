"""Writes the results of the evaluation commands as files beside the checkpoint."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rhn.files import write_atomically
from rhn.training.report.run import write_report
from rhn.training.run.record import RunRecordError
from rhn.training.terminal.console import say

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def beside(checkpoint: str, label: str) -> Path:
    """The file that holds the result `label` of a checkpoint: best.safetensors gives best.LABEL."""
    path = Path(checkpoint)
    return path.with_name(f"{path.stem}.{label}")


def write_result(path: Path, shown: Mapping[str, str], figures: Mapping[str, Any], picture: bytes | None) -> None:
    """Write a result as path.json and its `picture` as path.png, print the names, and renew the report of the run.

    Args:
        path: without suffix.
        shown: names and values that the report of the run shows.
        figures: all results, for programs.
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
    say(f"written: {', '.join(str(file) for file in written)}")


def png_of(figure: Figure) -> bytes:
    """A figure of matplotlib as PNG."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
