"""Runs cases on backends: in this process, or in several processes at a time, each with one backend.

Most of the time of a run is spent compiling, which Python's lock allows only one thread to do; hence processes. They
share nothing: a worker knows the suite, is told which case to run, and sends back the answers of its backend. The
answers are judged here, so that the right answers are computed only once. A worker gets the next case as soon as it is
free, so that all workers are busy until the end. When the cases of a backend are done, another backend gets a second
worker.

A backend that compiles has workers of two kinds. In one kind it compiles as it does in a training; these workers run
the cases of a quick run, which notice every known mistake. In the other kind it compiles quickly, for all other cases.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

from rhn.backend import Backend, CompilingBackend, LayerBackend, load_backend
from rhn_conformance.case import DTYPES, Case
from rhn_conformance.results import Result
from rhn_conformance.runner import Sitting, Target, ask, compare_pairs, failed_sitting, judge_sitting
from rhn_conformance.suite import all_cases, is_quick


class Described(NamedTuple):
    """What is known of a loaded backend: its description of itself, and its optional features.

    Attributes:
        backend: name of the backend.
        versions: its description of itself.
        not_asked: the optional feature that it lacks, in words.
        compiles: whether it can compile quickly.
    """

    backend: str
    versions: dict[str, str]
    not_asked: str
    compiles: bool


def describe(name: str, backend: Backend) -> Described:
    """The backend's description, for the record of a run."""
    no_layers = "" if isinstance(backend, LayerBackend) else "layers on their own: it has no method build_layer"
    return Described(name, backend.describe(), no_layers, isinstance(backend, CompilingBackend))


class Task(NamedTuple):
    """One case in one dtype."""

    case: Case
    dtype: str


class Post(NamedTuple):
    """The kind of a worker: its backend, and whether it compiles quickly, if the backend can."""

    backend: str
    quickly: bool


@dataclass(frozen=True)
class Plan:
    """The work of a run.

    Attributes:
        cases: the cases to run.
        backends: names of the backends.
        dtypes: the dtypes to use, as far as a case allows them.
        device: device for all backends; None is their own choice.
        run: identifier of the run, stored in the results.
    """

    cases: Sequence[Case]
    backends: Sequence[str]
    dtypes: Sequence[str]
    device: str | None = None
    run: str = ""

    def dtypes_of(self, case: Case) -> list[str]:
        """The dtypes in which `case` is run."""
        return [dtype for dtype in self.dtypes if dtype in case.dtypes]


class Progress:
    """Judges sittings and puts them together: a case is complete when every backend has done it in every dtype."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._cases = {case.name: case for case in plan.cases}
        self._sittings: dict[str, list[Sitting]] = {case.name: [] for case in plan.cases}

    def add(self, sitting: Sitting) -> list[Result]:
        """The results of a sitting; if it completes its case, also the results of all pairs of backends."""
        case, sittings = self._cases[sitting.case], self._sittings[sitting.case]
        judge_sitting(case, sitting, self._plan.device, self._plan.run)
        sittings.append(sitting)
        if not self.is_complete(sitting.case):
            return sitting.results
        in_order = sorted(sittings, key=lambda s: self._plan.backends.index(s.backend))
        pairs = compare_pairs(case, in_order, self._plan.device, self._plan.run)
        results = [*sitting.results, *pairs]
        for done in sittings:
            done.answers.clear()
        return results

    def is_complete(self, case: str) -> bool:
        """Whether all sittings of this case are in."""
        expected = len(self._plan.backends) * len(self._plan.dtypes_of(self._cases[case]))
        return len(self._sittings[case]) == expected

    @property
    def num_complete(self) -> int:
        """How many cases are complete."""
        return sum(map(self.is_complete, self._sittings))


def work_here(plan: Plan, load: Callable[[str], Backend] = load_backend) -> Iterator[Described | Sitting]:
    """Run the cases in this process, each case on all backends."""
    # torch first: once another framework's libraries are loaded, importing it may fail.
    names = sorted(plan.backends, key=lambda name: name != "torch")
    backends = {name: load(name) for name in names}
    for name in plan.backends:
        yield describe(name, backends[name])
    targets = {(n, d): Target(b, d, plan.device, n) for n, b in backends.items() for d in plan.dtypes}
    for case in plan.cases:
        for name in plan.backends:
            for dtype in plan.dtypes_of(case):
                yield ask(case, targets[name, dtype])


def work_in_processes(plan: Plan, jobs: int) -> Iterator[Described | Sitting]:
    """Run the cases in `jobs` processes at a time, each with one backend; results come as they are ready.

    Raises:
        ImportError: a backend could not be loaded; the message says why.
    """
    queues = {Post(name, quickly): _tasks(plan, quickly) for name in plan.backends for quickly in (True, False)}
    workers: list[_Worker] = []
    described: set[str] = set()
    try:
        while workers or any(queues.values()):
            while len(workers) < jobs and any(queues.values()):
                workers.append(_Worker(_next_post(queues, workers), plan.device))
            for connection in wait([worker.connection for worker in workers]):
                worker = next(w for w in workers if w.connection is connection)
                message = worker.receive()
                if isinstance(message, Exception):
                    raise ImportError(str(message)) from message
                if isinstance(message, Sitting) or message.backend not in described:
                    yield message
                if isinstance(message, Described):
                    described.add(message.backend)
                    worker.compiles = message.compiles
                if not worker.tasks and not worker.ended:
                    worker.give(_queue_of(worker, queues))
                if worker.ended:
                    queues[worker.post].extendleft([worker.tasks] if worker.tasks else [])
                    workers.remove(worker)
    finally:
        for worker in workers:
            worker.process.terminate()


def _tasks(plan: Plan, quickly: bool) -> deque[list[Task]]:
    """The tasks of a backend that it compiles quickly, or the others, in groups that need only one compilation."""
    groups: dict[object, list[Task]] = {}
    for case in plan.cases:
        for dtype in plan.dtypes_of(case):
            if is_quick(case, dtype) != quickly:
                groups.setdefault((case.inputs().program, dtype), []).append(Task(case, dtype))
    return deque(groups.values())


def _next_post(queues: Mapping[Post, deque[list[Task]]], workers: Sequence[_Worker]) -> Post:
    """The post of a new worker: it has tasks left, then the fewest workers of its backend, then the most tasks."""
    with_work = [post for post, queue in queues.items() if queue]
    return min(with_work, key=lambda p: (sum(w.post.backend == p.backend for w in workers), -len(queues[p])))


def _queue_of(worker: _Worker, queues: Mapping[Post, deque[list[Task]]]) -> deque[list[Task]]:
    """The queue that a worker takes its next tasks from. A backend that does not compile has no use for two kinds."""
    other = Post(worker.post.backend, not worker.post.quickly)
    return queues[worker.post] if queues[worker.post] or worker.compiles else queues[other]


class _Worker:
    """A worker process with one backend, seen from the main process.

    Attributes:
        post: what it is for.
        connection: the connection to the process.
        compiles: whether its backend can compile quickly; known once it has described itself.
        tasks: the tasks that it was given and has not answered yet.
        ended: whether it sends nothing more.
    """

    def __init__(self, post: Post, device: str | None) -> None:
        context = multiprocessing.get_context("spawn")  # a framework's threads do not survive a fork
        self.post = post
        self.compiles = False
        self.tasks: list[Task] = []
        self.ended = False
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, post, device), daemon=True)
        self.process.start()
        theirs.close()

    def receive(self) -> Described | Sitting | Exception:
        """The next message of the process; if it has died, the failure of its current task."""
        try:
            message: Described | Sitting | Exception = self.connection.recv()
        except EOFError:
            self.ended = True
            self.process.join()
            death = f"the process of the backend ended with exit code {self.process.exitcode}"
            if not self.tasks:
                return RuntimeError(f"backend {self.post.backend!r}: {death}")
            case, dtype = self.tasks.pop(0)
            return failed_sitting(case, self.post.backend, dtype, death)
        if isinstance(message, Sitting):
            self.tasks.pop(0)
        return message

    def give(self, queue: deque[list[Task]]) -> None:
        """Send the next group of tasks, or the message that there is none."""
        self.tasks = list(queue.popleft()) if queue else []
        self.connection.send([(case.name, dtype) for case, dtype in self.tasks])
        self.ended = not self.tasks


def _work(connection: Connection, post: Post, device: str | None) -> None:
    """The worker process: load a backend, then run tasks until there are no more."""
    try:
        backend = load_backend(post.backend)
        if post.quickly and isinstance(backend, CompilingBackend):
            backend.compile_quickly()
        connection.send(describe(post.backend, backend))
    except Exception as error:
        connection.send(error)
        return
    # Tracing makes many objects that live long; collecting garbage among them takes a seventh of the time.
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of functions traced for many shapes
    cases = {case.name: case for case in all_cases()}
    targets = {dtype: Target(backend, dtype, device, post.backend) for dtype in DTYPES}
    while tasks := connection.recv():
        for name, dtype in tasks:
            connection.send(ask(cases[name], targets[dtype]))
