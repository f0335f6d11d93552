"""Section 4 of the paper: the temporal Jacobian of a layer and its Gershgorin discs.

As in the whole specification, vectors are row vectors: a small change `d` of the state before a step becomes `d @ J`
after it. The paper's matrix A (equations 10 to 15) is the transpose of J; the eigenvalues are the same.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
from numpy.typing import NDArray

from rhn.spec.reference import ACTIVATION_SLOPE, LayerWeights, MicroStep


def micro_step_jacobian(
    recurrent: NDArray, micro_step: MicroStep, row: int = 0, activation: str = "tanh"
) -> NDArray[np.float64]:
    """The (H, H) derivative of the state after one micro-step with respect to the state before it, without masks.

    Args:
        recurrent: (G, H, H) weights of the micro-step.
        micro_step: from the trace of `layer_forward`.
        row: number of the batch row.
        activation: nonlinearity of the candidate h.
    """
    s, h, t, c = (values[row] for values in micro_step[:4])  # (H,) each
    coupled = len(recurrent) == 2
    slopes = [t * ACTIVATION_SLOPE[activation](h), (h - s if coupled else h) * t * (1.0 - t)]  # d s / d z of h and t
    if not coupled:
        slopes.append(s * c * (1.0 - c))
    through_gates = sum(weight * slope for weight, slope in zip(recurrent, slopes, strict=True))  # (H, H)
    return np.diag(c) + through_gates


def time_step_jacobian(
    weights: LayerWeights, micro_steps: list[MicroStep], row: int = 0, activation: str = "tanh"
) -> NDArray[np.float64]:
    """The (H, H) derivative of the state after a whole time step: the product over its micro-steps."""
    return reduce(
        np.matmul,
        (
            micro_step_jacobian(recurrent, step, row, activation)
            for recurrent, step in zip(weights.recurrent, micro_steps, strict=True)
        ),
    )


def gershgorin_discs(jacobian: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (H,) and radii (H,) of the discs, one per unit, that contain all eigenvalues (equation 11)."""
    centres = np.diag(jacobian).copy()
    return centres, np.abs(jacobian).sum(axis=0) - np.abs(centres)
