"""The command `rhn-conformance`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rhn.backend import installed_backends, load_backend
from rhn_conformance.case import DTYPES
from rhn_conformance.expected_failures import judge, load_expected_failures, unmatched
from rhn_conformance.results import Result, ResultWriter, Verdict, new_run, read_jsonl
from rhn_conformance.runner import Target
from rhn_conformance.suite import all_cases, select
from rhn_conformance.workers import Described, Plan, Progress, work_here, work_in_processes

RESULTS = Path("conformance-results.jsonl")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 only if everything that was requested ran and is right."""
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
    run.add_argument("--quick", action="store_true", help="the few cases that notice every known mistake")
    run.add_argument(
        "--jobs", type=int, metavar="N", help="processes at a time (default: one per backend, at most one per core)"
    )
    run.add_argument(
        "--expected-failures", type=Path, metavar="FILE", help="list of expected failures of the tested backend"
    )
    run.set_defaults(command=_run)

    explore = commands.add_parser("explore", help="compare backends with the reference on random cases")
    _add_target_options(explore)
    explore.add_argument("--examples", type=int, metavar="N", help="number of cases; without it, until one fails")
    explore.add_argument("--seed", type=int, default=0, help="seed of the random cases (default: %(default)s)")
    explore.set_defaults(command=_explore)

    report = commands.add_parser("report", help="write CONFORMANCE.md, a page and badges from results")
    report.add_argument("results", type=Path, nargs="*", default=[RESULTS], metavar="FILE", help="JSON lines")
    report.add_argument(
        "--output", type=Path, default=Path(), metavar="FOLDER", help="folder to write to (default: here)"
    )
    report.set_defaults(command=_report)

    vectors = commands.add_parser("vectors", help="check or write the frozen vectors of this package")
    what = vectors.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="check that they regenerate bit for bit")
    what.add_argument("--write", action="store_true", help="write new vectors")
    vectors.set_defaults(command=_vectors)
    return parser


def _add_target_options(parser: argparse.ArgumentParser) -> None:
    known = ", ".join(sorted(installed_backends()))
    parser.add_argument(
        "--backend", action="append", required=True, metavar="NAME", help=f"repeat for several; known: {known}"
    )
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="repeat for several (default: both)")
    parser.add_argument("--device", metavar="NAME", help="cpu, gpu (default: the backend's choice)")


def _run(options: argparse.Namespace) -> int:
    cases = select(all_cases(), options.select, options.quick)
    names = tuple(dict.fromkeys(options.backend))
    for name in set(names) - set(installed_backends()):
        load_backend(name)  # raises if it cannot be found, before anything else is done
    if options.expected_failures and len(names) > 1:
        raise ValueError("--expected-failures is the list of one backend: name a single --backend with it")
    excuses = {name: load_expected_failures(name, options.expected_failures) for name in names}
    record = new_run({"device": options.device, "dtypes": options.dtype or DTYPES, "select": options.select})
    plan = Plan(cases, names, options.dtype or DTYPES, options.device, record.run)
    jobs = options.jobs or min(len(names), os.cpu_count() or 1)

    started = time.monotonic()
    results: list[Result] = []
    with options.results.open("w") as file:
        writer = ResultWriter(file, record)
        done = Progress(plan)
        for event in work_here(plan, load_backend) if jobs == 1 else work_in_processes(plan, jobs):
            if isinstance(event, Described):
                writer.backend(event.backend, event.versions, event.not_asked)
                if event.not_asked:
                    print(f"{event.backend} is not asked about {event.not_asked}", flush=True)
                continue
            new = [judge(result, excuses[result.backend]) for result in done.add(event)]
            for result in new:
                writer.result(result)
                if not result.verdict.is_good:
                    print(f"    {result}", flush=True)
            results += new
            if done.is_complete(event.case):
                of_case = [result for result in results if result.case == event.case]
                worst = max((result.ulps for result in of_case), default=0.0)
                count = f"[{done.num_complete:2d}/{len(cases)}]"
                print(f"{count} {event.case:40s} {worst:8.3g} ULP  {_counts(of_case)}", flush=True)
    print(f"{_counts(results)} in {time.monotonic() - started:.0f} s; results in {options.results}")
    status = 0 if all(result.verdict.is_good for result in results) else 1
    for name in names:
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
    from rhn_conformance.explore import explore  # only this command needs hypothesis

    backends = [load_backend(name) for name in sorted(dict.fromkeys(options.backend), key=lambda name: name != "torch")]
    targets = [Target(backend, dtype, options.device) for backend in backends for dtype in options.dtype or DTYPES]
    explore(targets, options.examples, options.seed)
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
