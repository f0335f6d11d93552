"""The command `train`: from options to a run folder."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rhn.backend import Backend, Model, load_backend
from rhn.preflight import preflight
from rhn.processes import ProcessLostError, join_processes
from rhn.spec.config import RHNConfig
from rhn.text import printable
from rhn.training.evaluate.baseline import order_two_nats
from rhn.training.evaluate.generate import generate
from rhn.training.evaluate.stream import score_full_streams
from rhn.training.loop import DivergedError, Trainer
from rhn.training.options import OptionError, options_from
from rhn.training.options.plan import Plan, data_in_full
from rhn.training.recipes.published_scores import paper_result
from rhn.training.report.run import write_report
from rhn.training.report.tensorboard import TensorBoardLog
from rhn.training.run.checkpoint import TrainedModel, build_model
from rhn.training.run.folder import (
    RunFolder,
    check_unused,
    describe_environment,
    make_folder,
    new_run_folder,
    open_run_folder,
    resumed_options,
)
from rhn.training.run.progress import Progress
from rhn.training.run.saving import LogScalar, SavedRun, UnsavedRun
from rhn.training.run.start import Start, digest_of, progress_of
from rhn.training.score import UNITS, in_units
from rhn.training.terminal.console import be_silent, say, warn
from rhn.training.terminal.user_errors import RunInterruptedError
from rhn_datasets import Corpus, DataError, load_corpus, windows

SAMPLE_LENGTH = {"word": 100, "char": 400, "byte": 400}  # tokens


def train(
    backend_name: str, values: Mapping[str, Any], given: Mapping[str, Any], log_scalar: LogScalar
) -> float | None:
    """Train a model, or continue a run, and write a run folder.

    Args:
        backend_name: name of the backend that trains.
        values: values of all options of this command line.
        given: the options that the user gave; a resumed run keeps its own values of the others.
        log_scalar: called with name, value and step for each metric of each epoch.

    Returns:
        The test score at batch 1, or None if the run's own options stopped it before its last epoch.

    Raises:
        RunInterruptedError: a signal stopped the run, after it was saved.
        ValueError, OSError, ImportError: with one sentence for the user.
    """
    changed: dict[str, tuple[Any, Any]] = {}
    options_from(values)  # refuses what is impossible before anything is read
    values, given = data_in_full(values), data_in_full(given)
    is_new = values["resume"] is None
    if not is_new:
        folder = open_run_folder(values["resume"])
        values, changed = resumed_options(folder, given)
        plan = Plan.from_options(values)
    else:
        plan = Plan.from_options(values)
    o = plan.options
    backend = load_backend(backend_name)
    processes = join_processes(backend, o.device)
    processes.rows(o.batch_size)  # refuses a batch that they cannot share
    if not processes.is_first:
        be_silent()
    if is_new:
        folder = new_run_folder(o, f"{backend_name}-{o.dataset}")
    corpus = load_corpus(o.dataset, o.data_path, level=o.level)
    check_lengths(corpus, plan)
    config = plan.architecture(len(corpus.vocabulary))
    precision = plan.precision(training=True, device=o.device or backend.describe().get("device", "cpu"))
    with ExitStack() as stack:
        if processes.is_first and not is_new:
            stack.enter_context(folder.locked())
        start = Start.read(folder, config, corpus, plan)
        parameters = start.checkpoint.parameters or plan.initial_parameters(config)
        model = build_model(backend, config, parameters, o, precision, plan.optimizer, processes)
        model.load_optimizer_state(dict(start.checkpoint.optimizer_state))
        proof = _preflight(backend, config, plan, precision)
        environment = describe_environment(backend, processes)
        if processes.is_first:
            if is_new:
                make_folder(folder, o)
                stack.enter_context(folder.locked())
                check_unused(folder, o)  # again: nobody else could have trained there only from here on
            stack.enter_context(folder.warnings_kept([] if is_new else folder.read_list("warnings.json")))
            _record_options(folder, plan, changed, start.progress.step)
            folder.write_json("environment.json", {**environment, "precision": precision, "preflight": proof})
        _announce(environment, model, corpus, plan, precision, folder, start.progress)

        signals = stack.enter_context(_signals_noted())
        loggers = [log_scalar]
        if o.tensorboard and processes.is_first:
            loggers.append(stack.enter_context(closing(TensorBoardLog(folder.path))).log_scalar)
        description = {
            "backend": backend_name,
            "config": config.to_dict(),
            "options": vars(o),
            "vocabulary": corpus.vocabulary.to_json(),
            "data": digest_of(corpus),
        }
        run = SavedRun(folder, description, start.progress, corpus.level, o.epochs, loggers, signals)
        told = run if processes.is_first else UnsavedRun(signals)
        trainer = Trainer(model, corpus, plan, start.progress, told, start.checkpoint.state, processes)
        reason = _train(trainer, folder)
        where = (
            f"stopped at step {start.progress.step} in epoch {start.progress.epoch + 1};"
            f" continue with resume={folder.path}"
        )
        if reason not in ("signal", "max_steps", "max_minutes"):
            return _finish(backend, config, corpus, plan, folder, start.progress) if processes.is_first else None
        if processes.is_first:
            _on_its_own("the report", lambda: write_report(folder.path))
        if reason == "signal":
            raise RunInterruptedError(where, [*signals, signal.SIGTERM][0])
        say(f"{reason}={getattr(o, reason)}: {where}")
        return None


def _train(trainer: Trainer, folder: RunFolder) -> str:
    """Train, and return the reason why training ended. The errors for a diverged loss and a lost process get advice."""
    try:
        return trainer.train()
    except ProcessLostError as error:
        raise ProcessLostError(f"{error}; continue with resume={folder.path}") from error
    except DivergedError as error:
        kept = [f"{name} {file}" for name, file in (("newest", folder.last), ("best", folder.best)) if file.exists()]
        saved = f"good checkpoints: {', '.join(kept)}" if kept else "no checkpoint was saved before"
        raise DivergedError(f"{error}: lower learning_rate or max_grad_norm; {saved}") from error


def _finish(
    backend: Backend, config: RHNConfig, corpus: Corpus, plan: Plan, folder: RunFolder, progress: Progress
) -> float:
    """Score the best checkpoint at batch 1 and save the scores. Then write a sample and the report; either may fail."""
    o = plan.options
    best = TrainedModel.read(folder.best)
    best_row = progress_of(best, folder.best).history[-1]
    best_epoch = best_row["epoch"]
    precision = plan.precision(training=False, device=o.device or "cpu")
    model = build_model(backend, config, best.checkpoint.parameters, o, precision)
    say(f"best epoch: {best_epoch}" + ("" if o.evaluate_steps is None else f", step {best_row['step']}"))
    scores = score_full_streams(model, corpus, o.progress)
    paper = paper_result(vars(o))
    if paper is not None:
        say(f"  the paper: valid {paper.printed('valid')}, test {paper.printed('test')} {paper.unit}")
    baseline = order_two_nats(corpus.train, corpus.test, config.vocab_size)
    if baseline is not None:
        say(f"  for comparison, counting with order 2: {UNITS[corpus.level]} {in_units(baseline, corpus.level):.4g}")
    folder.write_json(
        "summary.json",
        {
            "best_epoch": best_epoch,
            "parameters": model.parameter_count,
            "metric": UNITS[corpus.level],
            **{name: {**vars(score), "value": score.value} for name, score in scores.items()},
            "order_two_baseline": None if baseline is None else in_units(baseline, corpus.level),
        },
    )

    def write_sample() -> None:
        prompt = corpus.test[: 1 if corpus.level == "word" else 20]
        sample = generate(model, prompt, SAMPLE_LENGTH[corpus.level], temperature=0.8, seed=o.seed)
        text = corpus.vocabulary.decode([*prompt, *sample])
        folder.write_text("sample.txt", printable(text) + "\n")  # people look at it with `cat`

    _on_its_own("the sample", write_sample)
    page = _on_its_own("the report", lambda: write_report(folder.path))
    if page is not None:
        say(f"report: {page}")
    return scores["test"].value


def _on_its_own(what: str, write: Callable[[], Path | None]) -> Path | None:
    """The result of `write`. If it fails, there is a warning only: the run is saved, and the other parts can follow."""
    try:
        return write()
    except Exception as error:  # whatever it is, it must not end a training that is finished
        warn(f"{what} could not be written ({type(error).__name__}: {error})")
        return None


def check_lengths(corpus: Corpus, plan: Plan) -> None:
    """Refuse data with a part that is shorter than a window, before anything is trained."""
    o = plan.options
    for part in ("train", "valid", "test"):
        try:
            windows(getattr(corpus, part), o.batch_size, o.bptt_length, drop_last=part == "train")
        except DataError as error:
            raise OptionError(f"the {part} part of dataset={o.dataset!r} is not accepted: {error}") from error


def _record_options(folder: RunFolder, plan: Plan, changed: Mapping[str, tuple[Any, Any]], step: int) -> None:
    """Record the options with which the run was started and resumed."""
    if changed:
        changes = folder.read_list("changes.json")
        changes += [
            {"step": step, "option": name, "before": before, "after": after}
            for name, (before, after) in changed.items()
        ]
        folder.write_json("changes.json", changes)
    folder.write_json("options.json", {**vars(plan.options), "resume": None})


def _preflight(backend: Backend, config: RHNConfig, plan: Plan, precision: str) -> str:
    """Check the backend before it trains, in the precision and on the device of the run; return the line to record."""
    if not plan.options.preflight:
        return "skipped by preflight=False"

    def build(config: RHNConfig, parameters: Mapping[str, NDArray]) -> Model:
        return build_model(backend, config, parameters, plan.options, precision)

    o = plan.options
    all_masks = o.time_masks or o.drop_update > 0 or o.reset_probability > 0
    return str(preflight(build, config, o.dtype, precision, all_masks=all_masks))


def _announce(
    environment: Mapping[str, str],
    model: Model,
    corpus: Corpus,
    plan: Plan,
    precision: str,
    folder: RunFolder,
    progress: Progress,
) -> None:
    shown = [name for name in environment if name not in ("backend", "recurrent-highway-networks", "python", "system")]
    described = ", ".join(f"{name} {environment[name]}" for name in shown if name not in ("processor", "cores"))
    c = model.config
    rounded = "" if precision == "float32" else f", products in {precision} where that is faster"
    say(f"backend: {described}, {plan.options.dtype}{rounded}")
    say(
        f"data: {corpus.name}, {len(corpus.vocabulary):,} {corpus.level} types; tokens: {len(corpus.train):,} train,"
        f" {len(corpus.valid):,} valid, {len(corpus.test):,} test"
    )
    say(
        f"model: {c.num_layers} x {c.hidden_size} units, recurrence depth {c.recurrence_depth},"
        f" {model.parameter_count:,} parameters"
    )
    continued = f", continued from step {progress.step} in epoch {progress.epoch + 1}" if progress.step else ""
    say(f"run: {folder.path}{continued}")


@contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """Note Ctrl-C and SIGTERM instead of ending; a second signal ends the process at once."""
    noted: list[int] = []

    def note(number: int, frame: Any) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    except ProcessLostError:
        # A launcher also sends SIGTERM to the processes that are left. They end anyway, and say why before they do.
        previous[signal.SIGTERM] = signal.SIG_IGN
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
