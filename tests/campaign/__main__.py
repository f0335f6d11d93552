"""The reliability campaign: kills, wrong options, bad files, bad servers, hard places; counted, one table at the end.

python tests/campaign [--short] [--seed N] [--area NAME ...] [--backend NAME ...] [--minutes N] [--record]
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from checkpoints import try_checkpoints
from data import try_archives, try_caches, try_corpora, try_downloads
from kills import try_kills
from options import try_options
from places import try_places
from tally import Limit, Tally, keep, kept, table, with_table

# How many of each: kills by backend; options in one process, and in processes of their own; and so on.
FULL = {
    "kills": {"reference": 120, "torch": 60, "jax": 36, "tf": 36},
    "options": (5000, 250),
    "checkpoints": (10_000, 400),
    "texts": 1000,
    "archives": 1000,
    "caches": 400,
    "servers": 3,
    "places": 1,
}
SHORT = {
    "kills": {"reference": 4, "torch": 0, "jax": 0, "tf": 0},
    "options": (250, 2),
    "checkpoints": (500, 20),
    "texts": 200,
    "archives": 100,
    "caches": 60,
    "servers": 1,
    "places": 3,
}
AREAS = ("options", "checkpoints", "data", "servers", "places", "kills")


RECORD = Path(__file__).with_name("record.json")
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tests/campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="about a minute, without the frameworks")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn")
    parser.add_argument("--area", action="append", choices=AREAS, help="only this; may be repeated")
    parser.add_argument("--backend", action="append", choices=FULL["kills"], help="kill only this; may be repeated")
    parser.add_argument("--minutes", type=float, default=math.inf, help="nothing new is tried after so many")
    parser.add_argument(
        "--record", action="store_true", help="add the figures to record.json and write docs/reliability.md with them"
    )
    given = parser.parse_args()
    os.environ |= {"NO_PROXY": "127.0.0.1", "TQDM_DISABLE": "1"}
    warnings.simplefilter("ignore")  # of NumPy, on weights that nobody would train
    tallies: list[Tally] = []
    limit = Limit(given.minutes)
    for area, attempt in _attempts(SHORT if given.short else FULL, given.seed, given.backend, limit):
        if (given.area and area not in given.area) or limit.is_over():
            continue
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = attempt(Path(folder).resolve())
        tallies += found
        areas = "; ".join(tally.area for tally in found)
        print(f"{areas}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        if given.record:
            keep(RECORD, f"{areas} (seed {given.seed})", found)
    failures = [f"{tally.area}: {failure}" for tally in tallies for failure in tally.failures]
    for failure in failures[:50]:
        print(ascii(failure)[1:-1])
    print(f"seed {given.seed}{', short' if given.short else ''}\n\n{table(tallies)}", end="")
    if given.record:
        PAGE.write_text(with_table(PAGE.read_text(), table(kept(RECORD))))
    sys.exit(1 if failures else 0)


def _attempts(
    sizes: dict, seed: int, backends: list[str] | None, limit: Limit
) -> Iterator[tuple[str, Callable[[Path], list[Tally]]]]:
    """The parts of the campaign, each with its area, to be called with an empty folder."""
    yield "options", lambda folder: try_options(seed, *sizes["options"], folder, limit)
    yield "checkpoints", lambda folder: try_checkpoints(seed, *sizes["checkpoints"], folder, limit)
    yield "data", lambda folder: [try_corpora(seed, sizes["texts"], folder, limit)]
    yield "data", lambda folder: [try_archives(seed, sizes["archives"], folder, limit)]
    yield "data", lambda folder: [try_caches(seed, sizes["caches"], folder, limit)]
    yield "servers", lambda folder: [try_downloads(sizes["servers"], folder, limit)]
    yield "places", lambda folder: try_places(sizes["places"], folder)
    for backend, kills in sizes["kills"].items():
        if kills and (backends is None or backend in backends):
            yield "kills", lambda folder, backend=backend, kills=kills: try_kills(seed, kills, backend, folder, limit)


if __name__ == "__main__":
    main()
