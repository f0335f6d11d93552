"""What a training step does with the gradients: clipped SGD, as the paper has it, Adam, and averaging of the weights.

The arithmetic is `rhn.spec.reference.update`; a backend's `train_step` does the same on its device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from rhn.spec.arguments import check_choice, check_flag, check_fraction, check_number

OPTIMIZERS = ("sgd", "adam")


@dataclass(frozen=True)
class Optimizer:
    """What `train_step` does with the gradients. A backend refuses an optimiser that it has not.

    Args:
        name: "sgd" or "adam" (Kingma and Ba 2015).
        decoupled_weight_decay: weight decay is no part of the differentiated loss, but shrinks the weights: after a
            step of SGD by the factor 1 - weight_decay (as the authors' Torch7 program did, not scaled by the rate),
            before a step of Adam by 1 - learning_rate * weight_decay (AdamW, Loshchilov and Hutter 2019).
        beta1: decay of Adam's mean of gradients, in [0, 1).
        beta2: decay of Adam's mean of squared gradients, in [0, 1).
        epsilon: added to the root of the latter, above 0.
        momentum: of SGD, in [0, 1): the step is along the decayed sum of the gradients (as in `torch.optim.SGD`).
        max_grad_value: the largest entry of a gradient after clipping by the norm, above 0; None for no limit.

    Raises:
        ValueError: an argument is outside of what is accepted.
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
            raise ValueError(f"momentum={self.momentum!r} is not accepted with optimizer={self.name!r}: it is SGD's")
        if self.max_grad_value is not None:
            check_number("max_grad_value", self.max_grad_value)


PAPER_SGD = Optimizer()

# What an optimiser remembers from step to step, by name; empty before the first step.
#   "step" ()                              Adam: steps taken
#   "mean.<parameter>", "square.<parameter>"   Adam: decayed means of gradients and of their squares
#   "momentum.<parameter>"                 SGD with momentum: decayed sum of gradients; absent where all of it is zero
#   "averaged_steps" ()                    averaging: steps that the mean holds; present from its start on
#   "average.<parameter>"                  averaging: mean of the weights after each of these steps
OptimizerState = dict[str, NDArray[Any]]
