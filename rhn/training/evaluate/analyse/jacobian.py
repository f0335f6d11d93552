"""The second half of `analyse`: how training changes the temporal Jacobian (section 4 of the paper).

For a sample of time steps, it computes eigenvalues and Gershgorin discs of every micro-step and of the whole time step,
with the initial weights of the run and with the trained weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rhn.spec.config import RHNConfig
from rhn.spec.jacobian import gershgorin_discs, micro_step_jacobian, time_step_jacobian
from rhn.training.evaluate.analyse.traces import LayerTrace, layer_traces

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_DISCS = 60  # per panel; more would cover each other


@dataclass(frozen=True)
class Jacobians:
    """K Jacobian matrices of one layer: those of one micro-step, or of the whole time step, at K times.

    Attributes:
        eigenvalues: (K, H) complex.
        centres: (K, H) centres of the Gershgorin discs.
        radii: (K, H) radii of the Gershgorin discs.
        norms: (K,) largest singular values.
    """

    eigenvalues: NDArray[np.complex128]
    centres: NDArray[np.float64]
    radii: NDArray[np.float64]
    norms: NDArray[np.float64]

    @classmethod
    def of(cls, matrices: list[NDArray[np.float64]]) -> Jacobians:
        """The figures of (H, H) `matrices`."""
        discs = [gershgorin_discs(matrix) for matrix in matrices]
        return cls(
            np.array([np.linalg.eigvals(matrix).astype(np.complex128) for matrix in matrices]),
            np.array([centres for centres, _ in discs]),
            np.array([radii for _, radii in discs]),
            np.array([np.linalg.norm(matrix, 2) for matrix in matrices]),
        )

    def figures(self) -> dict[str, float]:
        """Means and largest values of spectrum and discs over the K times."""
        spectral = np.abs(self.eigenvalues).max(axis=1)  # (K,)
        return {
            "spectral_radius_mean": float(spectral.mean()),
            "spectral_radius_max": float(spectral.max()),
            "norm_mean": float(self.norms.mean()),
            "disc_centre_mean": float(self.centres.mean()),
            "disc_radius_mean": float(self.radii.mean()),
        }


@dataclass(frozen=True)
class LayerJacobians:
    """The Jacobians of one layer: of each micro-step, and of the whole time step, which is their product."""

    micro_steps: list[Jacobians]
    time_step: Jacobians


def sampled_times(tokens: int, samples: int) -> NDArray[np.integer]:
    """At most `samples` of `tokens` time steps, evenly spread. The first time steps, whose state is still almost empty,
    are chosen last."""
    return np.unique(np.linspace(tokens - 1, 0, min(samples, tokens), endpoint=False).astype(int))


def layer_jacobians(
    config: RHNConfig,
    parameters: Mapping[str, NDArray],
    tokens: NDArray[np.integer],
    samples: int,
    progress: Callable[[int], Any] = lambda tokens: None,
) -> list[LayerJacobians]:
    """The Jacobians of every layer at `samples` times, while the model reads `tokens` (n + 1,).

    Args:
        config: the architecture of the model.
        parameters: by the names of the specification.
        tokens: the stream; its first n tokens are read.
        samples: number of time steps whose Jacobians are computed; at most n.
        progress: called with the number of tokens since the last call.
    """
    times = sampled_times(len(tokens) - 1, samples)
    matrices: list[list[list[NDArray]]] = [  # [layer][micro-step, and at the end the time step][time]
        [[] for _ in range(config.recurrence_depth + 1)] for _ in range(config.num_layers)
    ]
    for trace in layer_traces(config, parameters, tokens):
        for time in times[(times >= trace.start) & (times < trace.start + len(trace.micro_steps))]:
            for kind, matrix in enumerate(_matrices_at(trace, time - trace.start, config.activation)):
                matrices[trace.layer][kind].append(matrix)
        if trace.layer == config.num_layers - 1:
            progress(len(trace.micro_steps))
    return [LayerJacobians([Jacobians.of(kind) for kind in layer[:-1]], Jacobians.of(layer[-1])) for layer in matrices]


def _matrices_at(trace: LayerTrace, time: int, activation: str) -> list[NDArray[np.float64]]:
    """The matrices (H, H) of all micro-steps at one time step of the window, and their product."""
    weights = trace.weights._replace(recurrent=trace.weights.recurrent.astype(np.float64))
    steps = trace.micro_steps[time]
    each = [
        micro_step_jacobian(recurrent, step, activation=activation)
        for recurrent, step in zip(weights.recurrent, steps, strict=True)
    ]
    return [*each, time_step_jacobian(weights, steps, activation=activation)]


def jacobian_chart(start: LayerJacobians, trained: LayerJacobians, title: str) -> bytes:
    """A PNG of eigenvalues in the complex plane: before training above, after training below. Insets show the discs.

    The columns are the first, the middle and the last micro-step, and the whole time step. All panels have one scale,
    and all insets another.
    """
    from matplotlib.figure import Figure

    from rhn.training.evaluate.result import png_of

    depth = len(start.micro_steps)
    shown = sorted({0, (depth - 1) // 2, depth - 1})
    names = [*(f"micro-step {level + 1}" for level in shown), "the whole time step"]
    rows = {
        when: [*(layer.micro_steps[level] for level in shown), layer.time_step]
        for when, layer in (("at the start", start), ("trained", trained))
    }
    everything = [jacobians for row in rows.values() for jacobians in row]
    reach = 1.1 * max(1.0, *(float(np.abs(jacobians.eigenvalues).max()) for jacobians in everything))
    discs_reach = 1.1 * max(
        float((np.abs(jacobians.centres[-1]) + jacobians.radii[-1]).max()) for jacobians in everything
    )
    figure = Figure(figsize=(3.4 * len(names), 7.2), layout="constrained")
    figure.suptitle(title)
    for axes, (when, row) in zip(figure.subplots(2, len(names), squeeze=False), rows.items(), strict=True):
        for panel, jacobians, name in zip(axes, row, names, strict=True):
            panel.set_title(f"{name}, {when}", fontsize=10)
            draw_plane(panel, jacobians, reach, discs_reach)
    return png_of(figure)


def draw_plane(axes: Axes, jacobians: Jacobians, reach: float, discs_reach: float) -> None:
    """Eigenvalues of all sampled times and the unit circle; in a corner also the discs of the last of these times."""
    from matplotlib.patches import Circle

    corner = axes.inset_axes((0.66, 0.66, 0.33, 0.33), xticks=[], yticks=[])
    every = max(1, jacobians.centres.shape[1] // SHOWN_DISCS)
    for centre, radius in zip(jacobians.centres[-1][::every], jacobians.radii[-1][::every], strict=True):
        corner.add_patch(Circle((centre, 0.0), radius, facecolor="#2563a8", edgecolor="none", alpha=0.03))
    values = jacobians.eigenvalues.ravel()
    for plane, limit, size in ((axes, reach, 1.5), (corner, discs_reach, 0.3)):
        plane.add_patch(Circle((0.0, 0.0), 1.0, fill=False, edgecolor="#1f2933", linewidth=1.0))
        plane.plot(values.real, values.imag, ".", color="#c8501e", markersize=size, alpha=0.5)
        plane.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    axes.grid(alpha=0.3)
