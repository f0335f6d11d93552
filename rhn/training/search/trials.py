"""The search runs one trial after another, in any number of processes. Each trial is an ordinary training run."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

from rhn.backend import load_backend
from rhn.preflight import PreflightError
from rhn.processes import ProcessLostError, check_alone
from rhn.spec.config import RHNConfig
from rhn.text import one_line
from rhn.training.loop import DivergedError
from rhn.training.options.plan import Plan
from rhn.training.report.run import write_report
from rhn.training.report.search import write_search_report
from rhn.training.run.checkpoint import build_model
from rhn.training.run.folder import RunFolder
from rhn.training.run.record import RunRecord, RunRecordError, read_run
from rhn.training.run.saving import LogScalar
from rhn.training.run.start import digest_of
from rhn.training.score import UNITS, in_units
from rhn.training.search.folder import SearchFolder, Trial, best_of
from rhn.training.search.request import WITHOUT_EFFECT, Request
from rhn.training.search.samplers import Sampler, sampler_for
from rhn.training.terminal.console import say
from rhn.training.terminal.user_errors import RunInterruptedError, sentence
from rhn.training.train import check_lengths
from rhn.training.train import train as train_model
from rhn_datasets import Corpus, DataError, load_corpus

Train = Callable[[str, Mapping[str, Any], Mapping[str, Any], LogScalar], Any]

# Errors of the machine or the installation, not of the trial: they end the process, and the trial can be continued.
ENVIRONMENT_ERRORS = (ImportError, OSError, DataError, PreflightError, ProcessLostError)
# From the same checkpoint. If the process was killed each time, the trial is the cause, for example by its memory.
MOST_STARTS = 3


class PrunedError(Exception):
    """The current trial is to be ended early."""


def search(request: Request, train: Train = train_model) -> None:
    """Run all trials that no other process runs. Called again, it continues a search that was stopped or killed.

    Args:
        request: the command line.
        train: trains one model, as `rhn.training.train.train` does.

    Raises:
        RunInterruptedError: a signal stopped a trial; its run is saved.
        ValueError, OSError, ImportError: with a one-sentence message; before any trial for mistakes in the request.
    """
    folder = SearchFolder(request.folder)
    sampler = sampler_for(request, folder)
    corpus = checked_corpus(request)
    folder.open({**request.identity(), "data": digest_of(corpus)})
    say(f"search: {folder.path}, {request.how.trials} trials")
    numbers = range(1, request.how.trials + 1)
    while any(_run_trial(number, request, folder, sampler, train) for number in numbers):
        pass  # again from the first trial: another process may have been killed in it
    with folder.locked():
        page = write_search_report(request, folder)
    trials = folder.trials()
    others = sorted({*numbers} - {trial.number for trial in trials if trial.outcome})
    if others:
        say(f"other processes are running trials {', '.join(map(str, others))}")
    best = best_of(trials)
    if best is None:
        say("no trial has finished")
    else:
        say(f"best{' so far' if others else ''}: trial {best.number}, {_score(best, request)}")
        say(f"  {request.command(best.draw)}")
    say(f"report: {page}")


def checked_corpus(request: Request) -> Corpus:
    """Check the options of every trial, the data and the backend. Returns the data.

    Raises:
        ValueError, OSError, ImportError: with a one-sentence message.
    """
    check_alone(request.backend, "search")
    draws = [request.space.draw(request.how.search_seed, number) for number in range(1, request.how.trials + 1)]
    plans = [Plan.from_options(request.options(draw)) for draw in draws]
    plan, o = plans[0], plans[0].options
    backend = load_backend(request.backend)
    corpus = load_corpus(o.dataset, o.data_path, level=o.level)
    plan.architecture(len(corpus.vocabulary))
    for each in {(p.options.batch_size, p.options.bptt_length): p for p in plans}.values():
        check_lengths(corpus, each)
    smallest = RHNConfig(vocab_size=1, hidden_size=1, recurrence_depth=1)
    build_model(backend, smallest, plan.initial_parameters(smallest), o, o.precision or "float32", plan.optimizer)
    return corpus


def _run_trial(number: int, request: Request, folder: SearchFolder, sampler: Sampler, train: Train) -> bool:
    """Run trial `number` to its end; False if it has ended already, or another process runs it."""
    with folder.trial_lock(number) as is_ours:
        before = folder.trial(number) if is_ours else None
        if not is_ours or (before and before.outcome):
            return False
        run = folder.run(number)
        with folder.locked():
            trial = sampler.start(number, before, [row["valid_nats"] for row in _record(run).history])
            trial = replace(trial, starts=[*trial.starts, _newest_checkpoint(run)])
            folder.write(trial)
        drawn = ", ".join(f"{name}={value}" for name, value in request.space.options(trial.draw).items())
        say(f"\ntrial {number} of {request.how.trials}: {drawn}")
        try:
            outcome, why = _outcome(trial, request, folder, sampler, train)
        except BaseException:  # the process was not killed, so this start does not count
            folder.write(replace(trial, starts=trial.starts[:-1]))
            say(f"trial {number} has not ended: repeat the command to continue it")
            raise
        trial = _ended(trial, outcome, why, _record(run))
        sampler.end(trial)
        with folder.locked():
            folder.write(trial)
            write_search_report(request, folder)
        say(f"trial {number} {_result(trial, request)}")
    gc.collect()  # the model and what its framework keeps for it
    return True


def _outcome(trial: Trial, request: Request, folder: SearchFolder, sampler: Sampler, train: Train) -> tuple[str, str]:
    """Train the model of a trial: the outcome, and the reason."""
    run = folder.run(trial.number)
    if trial.starts.count(trial.starts[-1]) > MOST_STARTS:
        return "failed", f"the process was killed {MOST_STARTS} times in this trial, at the same checkpoint"
    options = {**request.options(trial.draw), "runs_path": str(folder.runs), "run": run.name}
    given: dict[str, Any] = {}
    if RunFolder(run).options.is_file():
        options["resume"] = given["resume"] = str(run)
        given |= {name: value for name, value in request.fixed.items() if name in WITHOUT_EFFECT}

    def judge(name: str, value: float, step: int) -> None:
        if name == "valid_nats" and sampler.should_prune(len(_record(run).history) - 1, value):
            raise PrunedError

    try:
        train(request.backend, options, given, judge)
    except (*ENVIRONMENT_ERRORS, RunInterruptedError):
        raise
    except PrunedError:
        outcome, why = "pruned", ""
    except DivergedError as error:
        outcome, why = "diverged", sentence(error)
    except Exception as error:  # after any error the search continues
        is_for_users = isinstance(error, ValueError | MemoryError)
        outcome, why = "failed", sentence(error) if is_for_users else f"{type(error).__name__}: {error}"
    else:
        return "finished", ""
    with suppress(RunRecordError):  # nothing was trained
        write_report(run)
    return outcome, one_line(why)


def _ended(trial: Trial, outcome: str, why: str, record: RunRecord) -> Trial:
    """The trial with its outcome and scores."""
    best = record.best_row
    nats = best["valid_nats"] if best and isfinite(best["valid_nats"]) else None
    if outcome == "finished" and nats is None:
        outcome, why = "failed", "it ended before the first validation"
    return replace(
        trial,
        outcome=outcome,
        why=why,
        valid_nats=nats,
        epochs=record.epochs[-1] if best else 0.0,
        seconds=sum(row["seconds"] for row in record.history),
    )


def _record(run: Path) -> RunRecord:
    """The record of a run folder; an empty record if there is none yet."""
    try:
        return read_run(run)
    except RunRecordError:
        return RunRecord(run.name, {}, {}, [], {}, "", [], [], {})


def _newest_checkpoint(run: Path) -> int:
    """The time of the newest checkpoint, in nanoseconds; 0 if there is none."""
    last = RunFolder(run).last
    return last.stat().st_mtime_ns if last.exists() else 0


def _score(trial: Trial, request: Request) -> str:
    return f"{UNITS[request.level]} {in_units(trial.valid_nats or 0.0, request.level):.4g} on valid"


def _result(trial: Trial, request: Request) -> str:
    """The outcome of a trial, for the terminal."""
    if trial.outcome == "finished":
        return f"finished: {_score(trial, request)}"
    return f"{trial.outcome}: {trial.why}" if trial.why else f"{trial.outcome}"
