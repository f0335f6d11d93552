"""A small layer of the PyTorch port, its sizes, and data for it."""

from __future__ import annotations

import torch
from torch import Tensor

from rhn_torch import RHN, RHNCell

T, B, E, H, L = 4, 3, 5, 6, 2

EXACT = {"rtol": 0.0, "atol": 1e-14}


def make_layer(**options) -> RHN:
    torch.manual_seed(0)
    options = {"dtype": torch.float64, "init_scale": 0.8, "transform_bias": -0.5, **options}
    return RHN(E, H, L, **options)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


X = random(T, B, E)


def steps(cell: RHNCell, x: Tensor, s: Tensor):
    for x_now in x:
        s = cell(x_now, s)
        yield s
