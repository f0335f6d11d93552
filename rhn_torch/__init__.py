"""Recurrent Highway Networks for PyTorch.

>>> import torch
>>> from rhn_torch import RHN
>>> rhn = RHN(input_size=16, hidden_size=32, recurrence_depth=3)
>>> output, h_n = rhn(torch.zeros(5, 4, 16))
>>> output.shape, h_n.shape
(torch.Size([5, 4, 32]), torch.Size([1, 4, 32]))
"""

from rhn_torch.cell import RHNCell
from rhn_torch.fast_recurrence import fast_recurrence
from rhn_torch.layer import RHN
from rhn_torch.model import RHNLanguageModel
from rhn_torch.recurrence import plain_recurrence

__all__ = ["RHN", "RHNCell", "RHNLanguageModel", "fast_recurrence", "plain_recurrence"]
