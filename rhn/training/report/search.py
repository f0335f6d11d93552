"""The report of a search: the best options, parallel coordinates of all trials, each option against the score."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import NamedTuple

from rhn.files import write_atomically
from rhn.text import one_line
from rhn.training.options import DEFAULTS
from rhn.training.report.render import render
from rhn.training.score import UNITS, in_units
from rhn.training.search.folder import OUTCOMES, SearchFolder, Trial, best_of
from rhn.training.search.request import Request
from rhn.training.search.space import Dimension

_MOST_LABELS = 6  # with more choices than this, only the first and the last are labelled


class Tick(NamedTuple):
    """A label at `place` of an axis, from 0 to 1."""

    place: float
    label: str


class Axis(NamedTuple):
    """An axis of a drawing: a dimension of the space, or the score."""

    name: str
    ticks: list[Tick]


class Line(NamedTuple):
    """A trial in the drawings.

    Attributes:
        places: positions on all axes, from 0 to 1; the last axis is the score, with the best at 1.
        style: "best", "finished" or "pruned".
        strength: opacity of the colour, from 0 to 1; better trials have more.
        words: description of the trial.
    """

    places: list[float]
    style: str
    strength: float
    words: str


class Row(NamedTuple):
    """A row of the table: number of the trial, link to the report of its run or "", and the other cells."""

    number: int
    page: str
    cells: list[str]


def write_search_report(request: Request, folder: SearchFolder) -> Path:
    """Write `report.html` into the folder of a search, and return its path."""
    page = folder.path / "report.html"
    write_atomically(page, search_page(request, folder))
    return page


def search_page(request: Request, folder: SearchFolder) -> bytes:
    """The page as UTF-8. Trials without a score appear in the table only."""
    trials, dimensions = sorted(folder.trials(), key=_by_score), request.space.dimensions
    best = best_of(trials)
    scored = [trial for trial in trials if trial.outcome and trial.valid_nats is not None]
    names = [", ".join(d.names) for d in dimensions]
    score = f"valid, {UNITS[request.level]}"
    worst = _worst_drawn(scored)
    others = set(DEFAULTS) - {name for d in dimensions for name in d.names}
    return render(
        "search.html.j2",
        name=one_line(folder.path.absolute().name),
        subtitle=f"{request.backend}, {request.common['dataset']}, {request.how.trials} trials",
        figures=_figures(trials, best, request),
        command=None if best is None else one_line(request.command(best.draw)),
        axes=[*map(_axis, names, dimensions), _score_axis(score, scored, worst, request)],
        lines=[_line(rank, trial, scored, worst, best, request) for rank, trial in enumerate(scored)][::-1],
        header=["trial", score, "outcome", *names, "epochs", "minutes"],
        rows=[_row(trial, request, folder) for trial in trials],
        space={name: str(d) for name, d in zip(names, dimensions, strict=True)},
        how=vars(request.how),
        fixed={name: value for name, value in request.common.items() if name in others and value != DEFAULTS[name]},
    )


def _by_score(trial: Trial) -> tuple[int, float, int]:
    """Sort key: the best trial first, trials without a score last."""
    return (1, 0.0, trial.number) if trial.valid_nats is None else (0, trial.valid_nats, trial.number)


def _figures(trials: list[Trial], best: Trial | None, request: Request) -> list[tuple[str, str, str]]:
    """Name, number and remark of the figures at the top."""
    found = []
    if best is not None:
        found.append((f"best valid, {UNITS[request.level]}", _score(best, request), f"trial {best.number}"))
    found += [(outcome, str(sum(t.outcome == outcome for t in trials)), "") for outcome in OUTCOMES]
    under_way = sum(trial.outcome is None for trial in trials)
    return [*found, ("not ended", str(under_way), "")] if under_way else found


def _worst_drawn(scored: list[Trial]) -> float:
    """The score, in nats, at the lower end of its axis: a few bad trials must not squeeze all others together."""
    scores = [trial.valid_nats or 0.0 for trial in scored]
    return min(scores[-1], scores[0] + 3 * (median(scores) - scores[0])) if scores else 0.0


def _score_axis(name: str, scored: list[Trial], worst: float, request: Request) -> Axis:
    if not scored:
        return Axis(name, [])
    is_cut = (scored[-1].valid_nats or 0.0) > worst
    lowest = f"{in_units(worst, request.level):.4g}{' or worse' if is_cut else ''}"
    return Axis(name, [Tick(0.0, lowest), Tick(1.0, _score(scored[0], request))])


def _axis(name: str, dimension: Dimension) -> Axis:
    values = dimension.values
    shown = values if len(values) <= _MOST_LABELS else (values[0], values[-1])
    ticks = [Tick(dimension.place(value), dimension.label(value)) for value in shown]
    return Axis(f"{name} (log)" if dimension.form == "log" else name, ticks)


def _line(rank: int, trial: Trial, scored: list[Trial], worst: float, best: Trial | None, request: Request) -> Line:
    nats, first = trial.valid_nats or 0.0, scored[0].valid_nats or 0.0
    score = 1.0 if worst <= first else 1 - min((nats - first) / (worst - first), 1.0)
    dimensions = request.space.dimensions
    values = "; ".join(f"{', '.join(d.names)} {d.label(trial.draw[d.key])}" for d in dimensions)
    return Line(
        places=[*(d.place(trial.draw[d.key]) for d in dimensions), score],
        style="best" if trial is best else "pruned" if trial.outcome == "pruned" else "finished",
        strength=1 - 0.75 * rank / len(scored),
        words=f"trial {trial.number}, {trial.outcome}: {_score(trial, request)}; {values}",
    )


def _row(trial: Trial, request: Request, folder: SearchFolder) -> Row:
    page = folder.run(trial.number) / "report.html"
    outcome = trial.outcome or "not ended"
    cells = [
        "" if trial.valid_nats is None else _score(trial, request),
        f"{outcome}: {trial.why}" if trial.why else outcome,
        *(d.label(trial.draw[d.key]) for d in request.space.dimensions),
        f"{trial.epochs:.4g}",
        f"{trial.seconds / 60:.1f}",
    ]
    return Row(trial.number, page.relative_to(folder.path).as_posix() if page.exists() else "", cells)


def _score(trial: Trial, request: Request) -> str:
    return f"{in_units(trial.valid_nats or 0.0, request.level):#.4g}"
