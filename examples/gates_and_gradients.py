"""For teachers: what the gates of a Recurrent Highway Network are good for, shown on a toy task with NumPy.

    python examples/gates_and_gradients.py [--steps 800] [--figure gates_and_gradients.svg]

The task: at the end of a sequence of twenty symbols, the network must repeat the first symbol. Three small RHNs with
different initial transform biases try to learn it. The figure, drawn with matplotlib, shows the Jacobian of a time
step, how far gradients reach, which network learns, and the gates. It takes half a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

import rhn
from rhn.spec.reference import LayerWeights, MicroStep, layer_forward

SYMBOLS, DISTRACTORS, LENGTH, BATCH = 4, 2, 20, 32
QUESTION = SILENCE = SYMBOLS + DISTRACTORS  # the input at the end, and the target before the end
BIASES = {0.0: "#c8501e", -2.0: "#2563a8", -4.0: "#0f766e"}  # initial transform biases, and their colours
CONFIG = rhn.RHNConfig(SYMBOLS + DISTRACTORS + 1, hidden_size=24, recurrence_depth=3, tie_weights=False)

Trace = list[list[MicroStep]]  # [time][micro-step]


def draw_batch(random: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Tokens (B, T): a symbol, distractors, a question mark. Targets (B, T): silence, and at the end the symbol."""
    tokens = random.integers(SYMBOLS, SYMBOLS + DISTRACTORS, (BATCH, LENGTH))
    tokens[:, 0] = random.integers(SYMBOLS, size=BATCH)
    tokens[:, -1] = QUESTION
    targets = np.full_like(tokens, SILENCE)
    targets[:, -1] = tokens[:, 0]
    return tokens, targets


def train(transform_bias: float, steps: int) -> tuple[rhn.Model, list[float]]:
    """A model after `steps` steps of Adam, and its accuracy at the last time step before each of them."""
    parameters = rhn.initial_parameters(CONFIG, seed=1, init_scale=0.15, transform_bias=transform_bias)
    model = rhn.load_backend("reference").build(CONFIG, parameters, "float64", optimizer=rhn.Optimizer("adam"))
    random = np.random.default_rng(1)
    accuracy = []
    for _ in range(steps):
        tokens, targets = draw_batch(random)
        logits, _ = model.forward(tokens)  # (B, T, V)
        accuracy.append(float((logits[:, -1].argmax(axis=-1) == targets[:, -1]).mean()))
        model.train_step(tokens, targets, model.zero_state(BATCH), None, 0.01, 0.0, 10.0)
    return model, accuracy


def weights_of(parameters: Mapping[str, NDArray]) -> LayerWeights:
    """The one layer's."""
    return LayerWeights(*(parameters[f"layers.0.{name}"] for name in ("input_weight", "recurrent_weight", "bias")))


def trace_of(parameters: Mapping[str, NDArray], tokens: NDArray) -> Trace:
    """Every state and gate, (B, H) each, while the layer reads `tokens`."""
    embedded = parameters["embedding"][tokens]  # (B, T, E)
    start = np.zeros((len(tokens), CONFIG.hidden_size))  # (B, H)
    return layer_forward(weights_of(parameters), embedded, start)[1]


def jacobian(weights: LayerWeights, micro_steps: list[MicroStep], row: int) -> NDArray:
    """J with ds_after = ds_before @ J for the states before and after a time step, for one row of the batch.

    A micro-step is s' = h * t + s * (1 - t), so J = diag(1 - t) + R_h diag(t (1 - h^2)) + R_t diag((h - s) t (1 - t)).
    """
    product = np.eye(CONFIG.hidden_size)
    for (recurrent_h, recurrent_t), step in zip(weights.recurrent, micro_steps, strict=True):
        s, h, t = step.state_before[row], step.h[row], step.t[row]  # (H,)
        product @= np.diag(1 - t) + recurrent_h * (t * (1 - h**2)) + recurrent_t * ((h - s) * t * (1 - t))
    return product


def reach(weights: LayerWeights, trace: Trace, row: int = 0) -> list[float]:
    """Norm of the derivative of the last state with respect to the state 0, 1, 2, ... time steps before it."""
    product, norms = np.eye(CONFIG.hidden_size), [1.0]
    for micro_steps in reversed(trace[1:]):
        product = jacobian(weights, micro_steps, row) @ product
        norms.append(float(np.linalg.norm(product, 2)))
    return norms


def draw(steps: int) -> Figure:
    """Train one model per bias, and draw what they do."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    plane, reached, learned, gates = figure.subplots(2, 2).flat
    tokens, _ = draw_batch(np.random.default_rng(0))
    for bias, colour in BIASES.items():
        before = rhn.initial_parameters(CONFIG, seed=1, init_scale=0.15, transform_bias=bias)
        trace = trace_of(before, tokens)
        eigenvalues = np.linalg.eigvals(jacobian(weights_of(before), trace[-1], row=0))
        plane.plot(eigenvalues.real, eigenvalues.imag, ".", color=colour, label=f"transform bias {bias:g}")
        reached.semilogy(reach(weights_of(before), trace), color=colour, linestyle="dashed")
        model, accuracy = train(bias, steps)
        after = model.parameters()
        reached.semilogy(reach(weights_of(after), trace_of(after, tokens)), color=colour)
        learned.plot(np.convolve(accuracy, np.ones(10) / 10, "valid"), color=colour)
        if bias == -4.0:
            opened = [[step.t.mean() for step in micro_steps] for micro_steps in trace_of(after, tokens)]  # (T, L)
            image = gates.imshow(np.transpose(opened), vmin=0, vmax=1, cmap="viridis", aspect="auto")
            figure.colorbar(image, ax=gates)
    plane.add_patch(Circle((0, 0), 1, fill=False, color="0.6"))
    plane.set(title="eigenvalues of a time step's Jacobian, at the start", xlim=(-0.2, 1.1), ylim=(-0.5, 0.5))
    plane.set_aspect("equal")
    plane.legend()
    reached.set(title="how far gradients reach (dashed: before training)", xlabel="time steps back", ylabel="norm")
    learned.set(title="accuracy after 20 time steps", xlabel="training step", ylim=(0, 1.05))
    gates.set(title="open transform gates after training, bias -4", xlabel="time step", ylabel="micro-step")
    gates.set_yticks(range(CONFIG.recurrence_depth))
    for axes in (plane, reached, learned):
        axes.grid(alpha=0.3)
    return figure


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=800, help="of training (default: %(default)s)")
    parser.add_argument("--figure", type=Path, default=Path("gates_and_gradients.svg"), help="file to write")
    arguments = parser.parse_args()
    with rc_context({"svg.hashsalt": "gates"}):  # the same bytes every time
        draw(arguments.steps).savefig(arguments.figure, metadata={"Date": None})
    print(f"written: {arguments.figure}")


if __name__ == "__main__":
    main()
