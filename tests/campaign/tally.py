"""What was tried, what survived, what failed and how: counted by area, within a limit of time, and kept in a file."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


class Limit:
    """Of time: nothing new is tried when it is over."""

    def __init__(self, minutes: float = math.inf) -> None:
        self._end = time.monotonic() + 60 * minutes

    def is_over(self) -> bool:
        return time.monotonic() > self._end

    def tries(self, count: int) -> Iterator[int]:
        """The numbers of `count` tries, or of as many as there is time for."""
        for number in range(count):
            if self.is_over():
                return
            yield number


@dataclass
class Tally:
    """The tries of one area.

    Attributes:
        area: what was tried.
        tried: how many times.
        failures: what went wrong, one line each, with what is needed to see it again.
        kinds: of the tries that survived, and how many.
        skipped: why nothing could be tried; empty if something could.
    """

    area: str
    tried: int = 0
    failures: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    skipped: str = ""

    def survived(self, kind: str) -> None:
        """Another try has ended as it must."""
        self.tried += 1
        self.kinds[kind] += 1

    def failed(self, how: str) -> None:
        """Another try has not."""
        self.tried += 1
        self.failures.append(how.replace("\n", " | ")[:600])


def table(tallies: list[Tally]) -> str:
    """A Markdown table of all areas and their sum, ending in a newline."""
    lines = ["| area | tried | survived | failed | how the tries ended |", "|---|---|---|---|---|"]
    for tally in tallies:
        failed = len(tally.failures)
        ends = ", ".join(f"{kind} {count:,}" for kind, count in tally.kinds.most_common())
        lines.append(
            f"| {tally.area} | {tally.tried:,} | {tally.tried - failed:,} | {failed} |"
            f" {f'SKIPPED: {tally.skipped}' if tally.skipped else ends} |"
        )
    tried, failed = sum(t.tried for t in tallies), sum(len(t.failures) for t in tallies)
    lines.append(f"| all | {tried:,} | {tried - failed:,} | {failed} | |")
    return "\n".join(lines) + "\n"


def keep(record: Path, part: str, tallies: list[Tally]) -> None:
    """Write the tallies of `part` into the file `record`, in place of older ones of the same part."""
    parts = json.loads(record.read_text()) if record.exists() else {}
    parts[part] = [vars(tally) for tally in tallies]
    record.write_text(json.dumps(parts, indent=1) + "\n")


def kept(record: Path) -> list[Tally]:
    """The tallies of all parts in the file `record`, added up by area."""
    areas: dict[str, Tally] = {}
    for part in json.loads(record.read_text()).values():
        for found in part:
            tally = areas.setdefault(found["area"], Tally(found["area"]))
            tally.tried += found["tried"]
            tally.failures += found["failures"]
            tally.kinds.update(found["kinds"])
            tally.skipped = tally.skipped or found["skipped"]
    return list(areas.values())


def with_table(page: str, new: str) -> str:
    """`page` with `new` in place of the table that begins as a table of tallies does."""
    before, after = page.split(new.split("\n", 1)[0], 1)
    return before + new + after[after.index("\n\n") + 1 :]
