"""What was tried, what survived, what failed and how: counted by area."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


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
