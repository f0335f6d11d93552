"""Prints or writes a comparison of runs, or the page of one run.

python -m rhn.training.report RUN [RUN ...] [--html FILE] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rhn.files import write_atomically
from rhn.text import one_line
from rhn.training.report.comparison import comparison_page, comparison_table
from rhn.training.report.run import run_page
from rhn.training.run.record import RunRecordError, read_run


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; `arguments` are the words after the program's name (None: the process's)."""
    parser = argparse.ArgumentParser(
        prog="python -m rhn.training.report",
        description="Compare runs of any backend with one another and with the paper.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write an HTML page: the table and all curves, or a single run's report",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to this file, not the terminal")
    given = parser.parse_args(arguments)
    try:
        runs = [read_run(folder) for folder in given.runs]
        table = comparison_table(runs)
        if given.html is not None:
            write_atomically(given.html, run_page(runs[0]) if len(runs) == 1 else comparison_page(runs))
        if given.markdown is not None:
            write_atomically(given.markdown, table.encode())
        else:
            print(table, end="")
    except (RunRecordError, OSError) as error:
        sys.exit(f"error: {one_line(str(error))}")  # it may name a file


if __name__ == "__main__":
    main()
