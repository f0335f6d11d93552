"""The command `train`: from options to a run folder."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from tqdm import tqdm

from rhn.backend import Backend, Model, check_precision, load_backend
from rhn.checkpoint import load_checkpoint
from rhn.preflight import preflight
from rhn.spec.config import RHNConfig
from rhn.spec.optimizers import Optimizer
from rhn.spec.parameters import initial_parameters
from rhn.training.checks import require_one_of
from rhn.training.environment import describe_environment
from rhn.training.evaluate.baseline import order_two_nats
from rhn.training.evaluate.generate import generate
from rhn.training.evaluate.stream import score_full_streams
from rhn.training.loop import DivergedError, Progress, Trainer, TrainingOptions
from rhn.training.options import OptionError, RunInterruptedError, pick
from rhn.training.paper import paper_result
from rhn.training.report.run import write_report
from rhn.training.report.tensorboard import TensorBoardLog
from rhn.training.run.checkpoint import build_model
from rhn.training.run.folder import Checkpoint, RunFolder, create_run_folder, open_run_folder, split_checkpoint
from rhn.training.score import UNITS, in_units
from rhn_datasets import Corpus, load_corpus

SAMPLE_LENGTH = {"word": 100, "char": 400, "byte": 400}  # tokens
METRICS = ("train_nats", "valid_nats", "test_nats", "learning_rate", "gradient_norm", "tokens_per_second")

LogScalar = Callable[[str, float, int], None]


def train(
    backend_name: str, options: Mapping[str, Any], given: Mapping[str, Any], log_scalar: LogScalar
) -> float | None:
    """Train a model, or go on with a run, and leave a run folder.

    Args:
        backend_name: trains.
        options: of this command line, with all defaults.
        given: those of them that the user gave; when resuming, the others are those of the run.
        log_scalar: called with name, value and step for each metric of each epoch.

    Returns:
        The test score at batch 1, or None if the run was stopped before its last epoch by its own options.

    Raises:
        RunInterruptedError: a signal stopped the run, and it is saved.
        ValueError, OSError, ImportError: with one sentence for the user.
    """
    folder, start = None, Start()
    if options["resume"] is not None:
        folder = open_run_folder(options["resume"])
        options = {**options, **folder.read_options(), **given}
        start = Start.read(folder)
    training = pick(TrainingOptions, options)
    optimizer = _optimizer(options)
    _check_architecture(options)
    _check_arithmetic(options)
    backend = load_backend(backend_name)
    as_trained = {**options, "precision": _training_precision(backend, options)}
    corpus = load_corpus(options["dataset"], options["data_path"], level=options["level"])
    config = _architecture(options, len(corpus.vocabulary))
    parameters = start.checkpoint.parameters or initial_parameters(config, options["seed"], *_initialisation(options))
    model = build_model(backend, config, parameters, as_trained, optimizer)
    model.load_optimizer_state(dict(start.checkpoint.optimizer_state))
    proof = _preflight(backend, config, as_trained)
    if folder is None:
        folder = create_run_folder(options["runs_path"], options["run"], f"{backend_name}-{options['dataset']}")
        folder.write_json("options.json", dict(options))
    arithmetic = {"precision": as_trained["precision"], "preflight": proof}
    folder.write_json("environment.json", {**describe_environment(backend), **arithmetic})
    _announce(backend, model, corpus, as_trained, folder, start.progress)

    tensorboard = TensorBoardLog(folder.path) if options["tensorboard"] else None
    progress = start.progress
    description = {
        "backend": backend_name,
        "config": config.to_dict(),
        "options": dict(options),
        "vocabulary": corpus.vocabulary.to_json(),
    }

    def save(path: Path, checkpoint: Checkpoint) -> None:
        folder.save(path, checkpoint, {**description, "progress": asdict(progress)})

    def on_epoch(row: dict[str, Any]) -> None:
        folder.write_metrics(progress.history)
        tqdm.write(_epoch_line(row, training.epochs, corpus.level))
        for name in METRICS:
            log_scalar(name, row[name], row["step"])
            if tensorboard is not None:
                tensorboard.log_scalar(name, row[name], row["step"])

    with _signals_noted() as signals, closing(tensorboard) if tensorboard else nullcontext():
        trainer = Trainer(
            model,
            corpus,
            training,
            progress,
            start.checkpoint.state,
            save_last=lambda state: save(folder.last, Checkpoint(model.parameters(), state, model.optimizer_state())),
            save_best=lambda: save(folder.best, Checkpoint(model.parameters())),
            on_epoch=on_epoch,
            stop_requested=lambda: bool(signals),
            show_progress=options["progress"],
        )
        try:
            reason = trainer.run()
        except DivergedError as error:
            last = f"the last good checkpoint is {folder.last}" if folder.last.exists() else "nothing was saved before"
            raise DivergedError(f"{error}: lower learning_rate or max_grad_norm; {last}") from error
    write_report(folder.path)
    where = f"stopped at step {progress.step} in epoch {progress.epoch + 1}; go on with resume={folder.path}"
    if reason == "signal":
        raise RunInterruptedError(where, signals[0])
    if reason in ("max_steps", "max_minutes"):
        print(f"{reason}={options[reason]}: {where}")
        return None
    return _finish(backend, config, corpus, options, folder, progress)


@dataclass(frozen=True)
class Start:
    """Where a run starts from: at nothing, or at its newest checkpoint."""

    progress: Progress = field(default_factory=Progress)
    checkpoint: Checkpoint = field(default_factory=lambda: Checkpoint({}))

    @classmethod
    def read(cls, folder: RunFolder) -> Start:
        """That of a run to resume; a run that was ended before its first checkpoint starts again."""
        if not folder.last.exists():
            return cls()
        tensors, metadata = load_checkpoint(folder.last)
        return cls(Progress(**metadata["progress"]), split_checkpoint(tensors))


def _finish(
    backend: Backend,
    config: RHNConfig,
    corpus: Corpus,
    options: Mapping[str, Any],
    folder: RunFolder,
    progress: Progress,
) -> float:
    """Score the best checkpoint at batch 1; write figures, curves and a sample."""
    best, metadata = load_checkpoint(folder.best)
    best_epoch = metadata["progress"]["epoch"]
    model = build_model(backend, config, best, options)
    print(f"best epoch: {best_epoch}")
    scores = score_full_streams(model, corpus, options["progress"])
    paper = paper_result(options)
    if paper is not None:
        print(f"  the paper: valid {paper.printed('valid')}, test {paper.printed('test')} {paper.unit}")
    baseline = order_two_nats(corpus.train, corpus.test, config.vocab_size)
    if baseline is not None:
        print(f"  for comparison, counting with order 2: {UNITS[corpus.level]} {in_units(baseline, corpus.level):.4g}")
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
    prompt = corpus.test[: 1 if corpus.level == "word" else 20]
    sample = generate(model, prompt, SAMPLE_LENGTH[corpus.level], temperature=0.8, seed=options["seed"])
    folder.write_text("sample.txt", corpus.vocabulary.decode([*prompt, *sample]) + "\n")
    page = write_report(folder.path)
    print(f"to look at: {page}")
    return scores["test"].value


def _architecture(options: Mapping[str, Any], vocab_size: int) -> RHNConfig:
    wanted = options["vocab_size"]
    if wanted is not None and wanted != vocab_size:
        raise OptionError(f"vocab_size={wanted!r} is not accepted: the data have {vocab_size} symbols")
    return pick(RHNConfig, {**options, "vocab_size": vocab_size})


def _check_architecture(options: Mapping[str, Any]) -> None:
    """Refuse impossible options before data are loaded; a vocabulary of one stands in for the real one."""
    config = pick(RHNConfig, {**options, "vocab_size": 1})
    tiny = RHNConfig(vocab_size=1, hidden_size=1, recurrence_depth=1, couple_gates=config.couple_gates)
    initial_parameters(tiny, options["seed"], *_initialisation(options))


def _check_arithmetic(options: Mapping[str, Any]) -> None:
    require_one_of("dtype", options["dtype"], ("float32", "float64"))
    require_one_of("recompute", options["recompute"], (True, False))
    if options["precision"] is not None:
        check_precision(options["precision"], options["dtype"])


def _training_precision(backend: Backend, options: Mapping[str, Any]) -> str:
    """That of the options. By default a GPU trains in tf32; the scores of the best epoch have no such default."""
    if options["precision"] is not None:
        return options["precision"]
    device = options["device"] or backend.describe().get("device", "cpu")
    return "tf32" if device != "cpu" and options["dtype"] == "float32" else "float32"


def _initialisation(options: Mapping[str, Any]) -> tuple[float, float, float | str]:
    return options["init_scale"], options["transform_bias"], options["other_bias"]


def _optimizer(options: Mapping[str, Any]) -> Optimizer:
    names = ("decoupled_weight_decay", "beta1", "beta2", "epsilon")
    return Optimizer(options["optimizer"], **{name: options[name] for name in names})


def _preflight(backend: Backend, config: RHNConfig, options: Mapping[str, Any]) -> str:
    """Prove the backend before it trains, in the precision and on the device of the run; what to put on record."""
    if not options["preflight"]:
        return "skipped by preflight=False"

    def build(config: RHNConfig, parameters: Mapping[str, NDArray]) -> Model:
        return build_model(backend, config, parameters, options)

    return str(preflight(build, config, options["dtype"], options["precision"]))


def _announce(
    backend: Backend, model: Model, corpus: Corpus, options: Mapping[str, Any], folder: RunFolder, progress: Progress
) -> None:
    described = ", ".join(f"{name} {value}" for name, value in backend.describe().items())
    c = model.config
    precision = (
        "" if options["precision"] == "float32" else f", products in {options['precision']} where that is faster"
    )
    print(f"backend: {described}, {options['dtype']}{precision}")
    print(
        f"data: {corpus.name}, {len(corpus.vocabulary):,} {corpus.level} types; tokens: {len(corpus.train):,} train,"
        f" {len(corpus.valid):,} valid, {len(corpus.test):,} test"
    )
    print(
        f"model: {c.num_layers} x {c.hidden_size} units, recurrence depth {c.recurrence_depth},"
        f" {model.parameter_count:,} parameters"
    )
    goes_on = f", going on from step {progress.step} in epoch {progress.epoch + 1}" if progress.step else ""
    print(f"run: {folder.path}{goes_on}")


def _epoch_line(row: Mapping[str, Any], epochs: int, level: str) -> str:
    train, valid, test = (in_units(row[f"{part}_nats"], level) for part in ("train", "valid", "test"))
    return (
        f"epoch {row['epoch']}/{epochs}: {UNITS[level]} train {train:.4g}, valid {valid:.4g}, test {test:.4g};"
        f" rate {row['learning_rate']:.3g}, {row['tokens_per_second']:,.0f} tokens/s, {row['seconds']:.0f} s,"
        f" {row['waiting_seconds'] / row['seconds']:.1%} of it waiting for data"
    )


@contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """Note Ctrl-C and SIGTERM instead of dying of them; a second one does end the process at once."""
    noted: list[int] = []

    def note(number: int, frame: Any) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
