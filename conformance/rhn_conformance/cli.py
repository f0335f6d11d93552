"""The command `rhn-conformance`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rhn.backend import installed_backends, load_backend
from rhn_conformance.case import DTYPES
from rhn_conformance.expected_failures import judge, load_expected_failures, unmatched
from rhn_conformance.results import Result, Verdict, new_run, read_jsonl, write_jsonl
from rhn_conformance.runner import Target, run_suite
from rhn_conformance.suite import all_cases, select

RESULTS = Path("conformance-results.jsonl")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 only if everything that was asked for ran and is right."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (ValueError, ImportError, OSError) as error:
        print(f"rhn-conformance: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rhn-conformance", description="Prove that backends compute the same.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the suite against backends")
    _add_target_options(run)
    run.add_argument("-k", dest="select", metavar="TEXT", help="part of a case's name, or the number of a clause")
    run.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help="JSON lines (default: %(default)s)")
    run.add_argument("--jobs", type=int, default=1, metavar="N", help="backends at a time (default: %(default)s)")
    run.add_argument("--expected-failures", type=Path, metavar="FILE", help="list of the one backend that is tested")
    run.set_defaults(command=_run)

    explore = commands.add_parser("explore", help="compare backends with the reference on random cases")
    _add_target_options(explore)
    explore.add_argument("--examples", type=int, metavar="N", help="how many; without it, until something fails")
    explore.add_argument("--seed", type=int, default=0, help="of the search (default: %(default)s)")
    explore.set_defaults(command=_explore)

    report = commands.add_parser("report", help="write CONFORMANCE.md, a page and badges from results")
    report.add_argument("results", type=Path, nargs="*", default=[RESULTS], metavar="FILE", help="JSON lines")
    report.add_argument("--output", type=Path, default=Path(), metavar="FOLDER", help="where to (default: here)")
    report.set_defaults(command=_report)

    vectors = commands.add_parser("vectors", help="the frozen vectors that travel with this package")
    what = vectors.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="they are, bit for bit, what the specification gives")
    what.add_argument("--write", action="store_true", help="make them anew")
    vectors.set_defaults(command=_vectors)
    return parser


def _add_target_options(parser: argparse.ArgumentParser) -> None:
    known = ", ".join(sorted(installed_backends()))
    parser.add_argument(
        "--backend", action="append", required=True, metavar="NAME", help=f"repeat for several; known: {known}"
    )
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="repeat for several (default: both)")
    parser.add_argument("--device", metavar="NAME", help="cpu, gpu (default: the backend's choice)")


def _targets(options: argparse.Namespace) -> list[Target]:
    # torch first: once another framework's libraries are loaded, importing it may fail.
    names = sorted(dict.fromkeys(options.backend), key=lambda name: name != "torch")
    backends = [load_backend(name) for name in names]
    return [Target(backend, dtype, options.device) for backend in backends for dtype in options.dtype or DTYPES]


def _run(options: argparse.Namespace) -> int:
    cases = select(all_cases(), options.select)
    targets = _targets(options)
    backends = {target.name: target.backend for target in targets}
    if options.expected_failures and len(backends) > 1:
        raise ValueError("--expected-failures is the list of one backend: name a single --backend with it")
    excuses = {name: load_expected_failures(name, options.expected_failures) for name in backends}
    run = new_run(
        versions={name: backend.describe() for name, backend in backends.items()},
        options={"device": options.device, "dtypes": sorted({t.dtype for t in targets}), "select": options.select},
    )

    started = time.monotonic()
    results: list[Result] = []
    for number, of_one in enumerate(run_suite(cases, targets, run.run, options.jobs), start=1):
        judged = [judge(result, excuses[result.backend]) for result in of_one]
        results += judged
        worst = max((result.ulps for result in judged), default=0.0)
        name = cases[number - 1].name
        print(f"[{number:2d}/{len(cases)}] {name:40s} {worst:8.3g} ULP  {_counts(judged)}", flush=True)
        for result in judged:
            if not result.verdict.is_good:
                print(f"    {result}")
    write_jsonl(options.results, run, results)
    print(f"{_counts(results)} in {time.monotonic() - started:.0f} s; results in {options.results}")
    status = 0 if all(result.verdict.is_good for result in results) else 1
    for name in backends:
        if not any(result.backend == name for result in results):
            print(f"nothing ran on {name}")
            status = 1
        for entry in unmatched(excuses[name], all_cases()):
            print(f"the expected failure {entry.case}/{entry.check} of {name} matches nothing: remove it")
            status = 1
    return status


def _counts(results: list[Result]) -> str:
    counts = Counter(result.verdict for result in results)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])


def _explore(options: argparse.Namespace) -> int:
    from rhn_conformance.explore import explore  # needs hypothesis, which nothing else does

    explore(_targets(options), options.examples, options.seed)
    return 0


def _report(options: argparse.Namespace) -> int:
    from rhn_conformance.report import write_report

    runs, results = [], []
    for path in options.results:
        more_runs, more_results = read_jsonl(path)
        runs += more_runs
        results += more_results
    for written in write_report(runs, results, options.output):
        print(written)
    return 0


def _vectors(options: argparse.Namespace) -> int:
    from rhn_conformance.frozen_vectors import check_vectors, write_vectors

    if options.write:
        print(write_vectors())
        return 0
    differences = check_vectors()
    print("\n".join(differences) or "the frozen vectors regenerate bit for bit")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
