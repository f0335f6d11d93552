"""Recurrent Highway Networks (Zilly et al., arXiv 1607.03474): the part that needs no framework.

>>> import rhn
>>> config = rhn.RHNConfig(vocab_size=10000, hidden_size=830, recurrence_depth=10)
>>> rhn.parameter_count(config)
23482400
"""

from rhn.backend import Backend, Model, installed_backends, load_backend
from rhn.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from rhn.moved import keep_old_names
from rhn.spec.config import RHNConfig
from rhn.spec.masks import DropRates, VariationalMasks, sample_masks
from rhn.spec.optimizers import Optimizer
from rhn.spec.parameters import check_parameters, initial_parameters, parameter_count, parameter_shapes

__all__ = [
    "Backend",
    "CheckpointError",
    "DropRates",
    "Model",
    "Optimizer",
    "RHNConfig",
    "VariationalMasks",
    "check_parameters",
    "initial_parameters",
    "installed_backends",
    "load_backend",
    "load_checkpoint",
    "parameter_count",
    "parameter_shapes",
    "sample_masks",
    "save_checkpoint",
]

keep_old_names()
