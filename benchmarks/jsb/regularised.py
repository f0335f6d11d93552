"""A regularised RHN on the JSB chorales, and what its gates do (section 6 of the paper).

    python benchmarks/jsb/regularised.py --data JSB_Chorales.mat [--depth 6] [--hidden-size 200] [OPTION ...]

One training with Adam and variational dropout, stopped when the validation loss has not become lower for a while; the
weights with the lowest are scored. Leaves benchmarks/results/jsb_regularised.json and docs/figures/jsb_gates.svg: how
far the gates of each micro-step are open over time in one test piece, and the loss when a micro-step's gate is shut.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chorales import Piece, batches, load
from models import MusicModel, initialise
from numpy.typing import NDArray
from optimisation import ROOT, score

from rhn.machine import describe_machine
from rhn.spec.reference import LayerWeights, layer_forward

RESULTS = ROOT / "benchmarks" / "results" / "jsb_regularised.json"
FIGURE = ROOT / "docs" / "figures" / "jsb_gates.svg"
SHUT = -80.0  # a bias that shuts a gate


def train(model: MusicModel, pieces: dict[str, list[Piece]], arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Train `model`, leave it with the weights of the lowest validation loss; losses after every epoch."""
    random = np.random.default_rng(arguments.seed)
    optimizer = torch.optim.Adam(model.parameters(), arguments.learning_rate, weight_decay=arguments.weight_decay)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=arguments.patience // 3)
    history: list[dict[str, float]] = []
    best = copy.deepcopy(model.state_dict())
    for epoch in range(arguments.epochs):
        model.train()
        for batch in batches(pieces["train"], arguments.batch_size, random):
            optimizer.zero_grad()
            (model.nats(*batch) / batch.lengths.sum()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), arguments.max_grad_norm)
            optimizer.step()
        losses = {part: score(model, pieces[part]) for part in ("train", "valid")}
        history.append(losses)
        schedule.step(losses["valid"])
        best_epoch = int(np.argmin([line["valid"] for line in history]))
        if best_epoch == epoch:
            best = copy.deepcopy(model.state_dict())
        elif epoch - best_epoch >= arguments.patience:
            break
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: train {losses['train']:.3f}, valid {losses['valid']:.3f}", flush=True)
    model.load_state_dict(best)
    return history


def gate_activity(model: MusicModel, piece: Piece) -> NDArray[np.float64]:
    """(L, T): transform gate of each micro-step at each frame of `piece`, mean over units."""
    tensors = model.recurrent.rhn.export_parameters()
    names = ("input_weight", "recurrent_weight", "bias")
    weights = LayerWeights(*(np.asarray(tensors[f"layers.0.{name}"], np.float64) for name in names))
    x = piece[None, :-1].astype(np.float64)  # (1, T, KEYS)
    _, trace = layer_forward(weights, x, np.zeros((1, weights.bias.shape[-1])))
    return np.array([[step.t.mean() for step in micro_steps] for micro_steps in trace]).T


def lesions(model: MusicModel, pieces: list[Piece]) -> list[float]:
    """The loss with the transform gate of one micro-step shut, for each micro-step."""
    (cell,) = model.recurrent.rhn.cells
    losses = []
    for micro_step in range(cell.bias.shape[0]):
        bias = cell.bias.detach().clone()  # (L, G*H): candidate, transform gate
        with torch.no_grad():
            cell.bias[micro_step, cell.hidden_size :] = SHUT
        losses.append(score(model, pieces))
        with torch.no_grad():
            cell.bias.copy_(bias)
    return losses


def draw(activity: NDArray[np.float64], test: float, without: list[float]) -> None:
    """Gate activity (L, T) as an image over time, and the lesions beside it."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "recurrent-highway-networks", "svg.fonttype": "path"}):
        figure = Figure(figsize=(10, 3.2), layout="constrained")
        over_time, lesion = figure.subplots(1, 2, width_ratios=(3, 1))
        image = over_time.imshow(activity, aspect="auto", vmin=0, vmax=activity.max(), cmap="viridis", origin="lower")
        figure.colorbar(image, ax=over_time, label="transform gate")
        micro_steps = range(len(activity))
        over_time.set_yticks(micro_steps, [str(step + 1) for step in micro_steps])
        over_time.set(xlabel="frame of a test chorale", ylabel="micro-step", title="mean activity of the gates")
        lesion.barh(micro_steps, np.array(without) - test, color="#2563a8")
        lesion.set_yticks(micro_steps, [str(step + 1) for step in micro_steps])
        lesion.set_xlabel("nats per frame")
        lesion.set_title("loss that a shut gate adds", fontsize=11)  # as wide as its axes
        figure.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the file JSB_Chorales.mat")
    for name, default, meaning in (
        ("depth", 6, "micro-steps"),
        ("hidden-size", 200, "units"),
        ("epochs", 400, "at most"),
        ("patience", 40, "epochs without a lower validation loss, then stop"),
        ("batch-size", 8, "pieces side by side"),
        ("learning-rate", 3e-3, "of Adam; times 0.3 where the validation loss stays"),
        ("weight-decay", 1e-5, "added to the gradient, times the weights"),
        ("max-grad-norm", 1.0, "gradients are shortened to it"),
        ("drop-input", 0.2, "probability of dropping a key, for a whole piece"),
        ("drop-state", 0.3, "probability of dropping a unit of the state, for a whole piece"),
        ("drop-output", 0.5, "probability of dropping an output, for one frame"),
        ("std", 0.07, "standard deviation of the initial weights"),
        ("transform-bias", -1.0, "initial bias of the transform gates"),
        ("seed", 1, "of initial weights, order and masks"),
    ):
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{meaning} ({default})")
    arguments = parser.parse_args()
    pieces = load(arguments.data)
    torch.manual_seed(arguments.seed)
    drops = (arguments.drop_input, arguments.drop_state, arguments.drop_output)
    model = MusicModel("RHN", arguments.hidden_size, arguments.depth, *drops)
    initialise(model, arguments.std, arguments.transform_bias)
    started = time.monotonic()
    history = train(model, pieces, arguments)
    minutes = (time.monotonic() - started) / 60
    scores = {part: score(model, pieces[part]) for part in ("valid", "test")}
    without = lesions(model, pieces["test"])
    activity = gate_activity(model, pieces["test"][0])
    record: dict[str, Any] = {
        **{name: value for name, value in vars(arguments).items() if name != "data"},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "epochs": len(history),
        "minutes": round(minutes, 1),
        **scores,
        "test_with_a_gate_shut": without,
        "machine": describe_machine(),
    }
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    draw(activity, scores["test"], without)
    print(
        f"{record['parameters']:,} parameters, {len(history)} epochs, {minutes:.1f} minutes: nats per frame "
        f"valid {scores['valid']:.3f}, test {scores['test']:.3f}; with a gate shut: "
        + ", ".join(f"{loss:.2f}" for loss in without)
    )


if __name__ == "__main__":
    main()
