"""Pictures of a run."""

from __future__ import annotations

import io
from typing import Any

from rhn.training.evaluation import UNITS, in_units


def learning_curves(history: list[dict[str, Any]], level: str, title: str) -> bytes:
    """A PNG: training, validation and test score by epoch, and the learning rate below.

    Args:
        history: rows as `rhn.training.loop` makes them, at least one.
        level: "word", "char" or "byte".
        title: above the picture.
    """
    from matplotlib.figure import Figure  # without pyplot: no display and no global state

    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(7, 5), layout="constrained")
    scores, rates = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    for name, label in (("train_nats", "train (with dropout)"), ("valid_nats", "valid"), ("test_nats", "test")):
        scores.plot(epochs, [in_units(row[name], level) for row in history], marker=".", label=label)
    scores.set(title=title, ylabel=UNITS[level])
    scores.legend()
    scores.grid(alpha=0.3)
    rates.plot(epochs, [row["learning_rate"] for row in history], marker=".", color="0.3")
    rates.set(xlabel="epoch", ylabel="learning rate")
    rates.grid(alpha=0.3)
    rates.xaxis.get_major_locator().set_params(integer=True)
    if level == "word":
        scores.set_yscale("log")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
