"""The update rule of a training step: clipped SGD, as in the paper, Adam, and averaging of the weights.

`rhn.spec.reference.update` computes it; a backend's `train_step` does the same on its device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from rhn.spec.arguments import check_choice, check_flag, check_fraction, check_number

OPTIMIZERS = ("sgd", "adam")


@dataclass(frozen=True)
class Optimizer:
    """The update rule of `train_step`. A backend refuses an optimiser that it does not have.

    Args:
        name: "sgd" or "adam" (Kingma and Ba 2015).
        decoupled_weight_decay: weight decay is not part of the differentiated loss, but shrinks the weights. With SGD
            they are multiplied by 1 - weight_decay after the step, not scaled by the learning rate, as in the authors'
            Torch7 program. With Adam they are multiplied by 1 - learning_rate * weight_decay before the step (AdamW,
            Loshchilov and Hutter 2019).
        beta1: decay of Adam's mean of gradients, in [0, 1).
        beta2: decay of Adam's mean of squared gradients, in [0, 1).
        epsilon: added to the square root of Adam's mean of squared gradients, above 0.
        momentum: decay of the sum of gradients that a step of SGD follows, in [0, 1), as in `torch.optim.SGD`.
        max_grad_value: the largest entry of a gradient after clipping by the norm, above 0; None for no limit.

    Raises:
        ValueError: an argument is not accepted.
    """

    name: str = "sgd"
    decoupled_weight_decay: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    momentum: float = 0.0
    max_grad_value: float | None = None

    def __post_init__(self) -> None:
        check_choice("optimizer", self.name, OPTIMIZERS)
        check_flag("decoupled_weight_decay", self.decoupled_weight_decay)
        for name in ("beta1", "beta2"):
            check_fraction(name, getattr(self, name))
        check_number("epsilon", self.epsilon)
        check_fraction("momentum", self.momentum)
        if self.momentum and self.name != "sgd":
            raise ValueError(
                f"momentum={self.momentum!r} is not accepted with optimizer={self.name!r}: it is for SGD only"
            )
        if self.max_grad_value is not None:
            check_number("max_grad_value", self.max_grad_value)


PAPER_SGD = Optimizer()

# The state of an optimiser, by name; empty before the first step.
#   "step" ()                              Adam: steps taken
#   "mean.<parameter>", "square.<parameter>"   Adam: decayed means of gradients and of their squares
#   "momentum.<parameter>"                 SGD with momentum: decayed sum of gradients; absent if all of it is zero
#   "averaged_steps" ()                    averaging: number of steps in the mean; present once averaging is on
#   "average.<parameter>"                  averaging: mean of the weights after each of these steps
OptimizerState = dict[str, NDArray[Any]]
