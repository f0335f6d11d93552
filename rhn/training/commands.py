"""What the command line can do, in plain functions: train and evaluate."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from rhn.backend import Backend, Model, load_backend
from rhn.spec.checkpoint import CheckpointError, load_checkpoint
from rhn.spec.config import RHNConfig
from rhn.spec.parameters import initial_parameters
from rhn.training.baseline import order_two_nats
from rhn.training.evaluation import UNITS, Score, evaluate, in_units
from rhn.training.generation import generate
from rhn.training.loop import DivergedError, Progress, Trainer, TrainingOptions
from rhn.training.options import OptionError, pick
from rhn.training.report import learning_curves
from rhn.training.run_folder import RunFolder, create_run_folder
from rhn_datasets import Corpus, DataError, Vocabulary, load_corpus

# What the user can mend; the message is one sentence.
USER_ERRORS = (OptionError, DataError, CheckpointError, DivergedError, ImportError, ValueError, OSError)

SAMPLE_LENGTH = {"word": 100, "char": 400, "byte": 400}

LogScalar = Callable[[str, float, int], None]


class RunInterruptedError(Exception):
    """A signal ended the run; everything is saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_status = 128 + signal_number


def train(backend_name: str, options: Mapping[str, Any], log_scalar: LogScalar) -> float:
    """Train a model and leave a run folder; returns the final test score."""
    training = pick(TrainingOptions, options)
    _check_architecture(options)
    backend = load_backend(backend_name)
    corpus = load_corpus(options["dataset"], options["data_path"], level=options["level"])
    config = _architecture(options, len(corpus.vocabulary))
    parameters = initial_parameters(config, options["seed"], *_initialisation(options))
    model = backend.build(config, parameters, options["dtype"], options["device"])
    folder = create_run_folder(options["runs_path"], options["run"], f"{backend_name}-{options['dataset']}")
    folder.write_json("options.json", dict(options))
    _announce(backend, model, corpus, options, folder)

    progress = Progress()
    metadata = {
        "backend": backend_name,
        "config": config.to_dict(),
        "options": dict(options),
        "vocabulary": corpus.vocabulary.to_json(),
    }

    def on_epoch(row: dict[str, Any]) -> None:
        folder.write_metrics(progress.history)
        tqdm.write(_epoch_line(row, training.epochs, corpus.level))
        for name in ("train_nats", "valid_nats", "test_nats", "learning_rate", "gradient_norm", "tokens_per_second"):
            log_scalar(name, row[name], row["step"])

    with _stop_on_signals() as stop:
        trainer = Trainer(
            model,
            corpus,
            training,
            progress,
            None,
            save_last=lambda state: folder.save(
                folder.last, model.parameters(), {**metadata, "progress": progress.to_json()}, state
            ),
            save_best=lambda: folder.save(
                folder.best, model.parameters(), {**metadata, "progress": progress.to_json()}
            ),
            on_epoch=on_epoch,
            stop_requested=lambda: stop.signal_number is not None,
            show_progress=options["progress"],
        )
        try:
            finished = trainer.run()
        except DivergedError as error:
            last = (
                f"the last good checkpoint is {folder.last}"
                if folder.last.exists()
                else "no checkpoint was written yet"
            )
            raise DivergedError(f"{error}: lower learning_rate or max_grad_norm; {last}") from error
    if not finished:
        where = f"step {progress.step}, epoch {progress.epoch + 1}"
        raise RunInterruptedError(f"stopped at {where}; saved in {folder.last}", stop.signal_number or signal.SIGINT)
    return _finish(backend, model.config, corpus, options, folder, progress)


def evaluate_checkpoint(backend_name: str, options: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, float]:
    """Score a checkpoint of any backend on the validation and test part of its data, at batch 1.

    Args:
        backend_name: evaluates.
        options: of this command line, with all defaults.
        given: those of them that the user gave; the others come from the checkpoint's run.
    """
    if options["checkpoint"] is None:
        raise OptionError("checkpoint=None is not accepted: evaluate needs the file of a checkpoint")
    parameters, metadata = load_checkpoint(options["checkpoint"])
    options = {**options, **metadata.get("options", {}), **given}
    try:
        config = RHNConfig(**metadata["config"])
        vocabulary = Vocabulary.from_json(metadata["vocabulary"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{options['checkpoint']} holds no language model of this collection") from error
    backend = load_backend(backend_name)
    corpus = load_corpus(options["dataset"], options["data_path"], level=options["level"])
    if corpus.vocabulary != vocabulary:
        raise CheckpointError(
            f"{options['checkpoint']} was trained on another vocabulary ({len(vocabulary)} symbols) than that of"
            f" dataset={options['dataset']!r} ({len(corpus.vocabulary)} symbols)"
        )
    parameters = {name: value for name, value in parameters.items() if not name.startswith("state.")}
    model = backend.build(config, parameters, options["dtype"], options["device"])
    print(f"{options['checkpoint']}: written by {metadata.get('backend')}, evaluated by {backend_name}")
    scores = _score_full_streams(model, corpus, options)
    return {name: score.value for name, score in scores.items()}


def _finish(
    backend: Backend,
    config: RHNConfig,
    corpus: Corpus,
    options: Mapping[str, Any],
    folder: RunFolder,
    progress: Progress,
) -> float:
    """Score the best checkpoint at batch 1; write figures, curves and a sample."""
    best, _ = load_checkpoint(folder.best)
    model = backend.build(config, best, options["dtype"], options["device"])
    print(f"best epoch: {progress.best_epoch}")
    scores = _score_full_streams(model, corpus, options)
    baseline = order_two_nats(corpus.train, corpus.test, config.vocab_size)
    if baseline is not None:
        print(f"  for comparison, counting with order 2: {UNITS[corpus.level]} {in_units(baseline, corpus.level):.4g}")
    folder.write_json(
        "summary.json",
        {
            "best_epoch": progress.best_epoch,
            "parameters": model.parameter_count,
            "metric": UNITS[corpus.level],
            **{name: {**vars(score), "value": score.value} for name, score in scores.items()},
            "order_two_baseline": None if baseline is None else in_units(baseline, corpus.level),
        },
    )
    curves = learning_curves(progress.history, corpus.level, folder.path.name)
    (folder.path / "curves.png").write_bytes(curves)
    prompt = corpus.test[: 1 if corpus.level == "word" else 20]
    sample = generate(model, prompt, SAMPLE_LENGTH[corpus.level], temperature=0.8, seed=options["seed"])
    folder.write_text("sample.txt", corpus.vocabulary.decode([*prompt, *sample]) + "\n")
    print(f"written: {folder.path}/summary.json, metrics.jsonl, curves.png, sample.txt, best.safetensors")
    return scores["test"].value


def _score_full_streams(model: Model, corpus: Corpus, options: Mapping[str, Any]) -> dict[str, Score]:
    scores = {}
    for name in ("valid", "test"):
        tokens = getattr(corpus, name)
        with tqdm(
            total=len(tokens) - 1, desc=name, unit=" tokens", leave=False, disable=not options["progress"]
        ) as bar:
            scores[name] = evaluate(model, tokens, corpus.level, progress=bar.update)
        print(f"  {name} (batch 1): {scores[name]}")
    return scores


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


def _initialisation(options: Mapping[str, Any]) -> tuple[float, float, float | str]:
    return options["init_scale"], options["transform_bias"], options["other_bias"]


def _announce(backend: Backend, model: Model, corpus: Corpus, options: Mapping[str, Any], folder: RunFolder) -> None:
    described = ", ".join(f"{name} {value}" for name, value in backend.describe().items())
    c = model.config
    print(f"backend: {described}, {options['dtype']}")
    print(
        f"data: {corpus.name}, {len(corpus.vocabulary):,} {corpus.level} types; tokens: {len(corpus.train):,} train,"
        f" {len(corpus.valid):,} valid, {len(corpus.test):,} test"
    )
    print(
        f"model: {c.num_layers} x {c.hidden_size} units, recurrence depth {c.recurrence_depth},"
        f" {model.parameter_count:,} parameters"
    )
    print(f"run: {folder.path}")


def _epoch_line(row: Mapping[str, Any], epochs: int, level: str) -> str:
    train, valid, test = (in_units(row[f"{part}_nats"], level) for part in ("train", "valid", "test"))
    return (
        f"epoch {row['epoch']}/{epochs}: {UNITS[level]} train {train:.4g}, valid {valid:.4g}, test {test:.4g};"
        f" rate {row['learning_rate']:.3g}, {row['tokens_per_second']:,.0f} tokens/s, {row['seconds']:.0f} s"
    )


@dataclass
class _Stop:
    signal_number: int | None = None


@contextmanager
def _stop_on_signals() -> Iterator[_Stop]:
    """Note Ctrl-C and SIGTERM instead of dying of them; a second Ctrl-C does end the process at once."""
    stop = _Stop()

    def note(number: int, frame: Any) -> None:
        if stop.signal_number is not None:
            raise KeyboardInterrupt
        stop.signal_number = number

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
