"""The command `analyse`: how gates and states of a trained model behave (sections 4 and 6 of the paper)."""

from rhn.training.evaluate.analyse.command import analyse_checkpoint

__all__ = ["analyse_checkpoint"]
