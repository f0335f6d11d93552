"""Products with factors in tf32, by software: how far off a model is."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rhn.compare import LIMIT
from rhn.preflight import ROUNDED_LIMIT, has_all_masks, preflight, variant_config, variants
from rhn_torch.backend import TorchBackend

# Where the first factor stands in a call.
FIRST_FACTOR = {"mm": 0, "bmm": 0, "addmm": 1, "addmm_": 1, "baddbmm": 1, "baddbmm_": 1}


class FactorsInTF32(TorchDispatchMode):
    """Brings the factors of all matrix products to tf32, as a GPU does: from 23 stored bits to 10.

    Args:
        truncated: the last bits are cut off, as a tensor core does that is given float32 as it is; otherwise the
            factor is rounded to the nearest.
    """

    def __init__(self, truncated: bool) -> None:
        super().__init__()
        self.products = 0
        self._half = 0 if truncated else 0x1000

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first = FIRST_FACTOR.get(function.overloadpacket.__name__)
        if first is not None:
            self.products += 1
            args = (*args[:first], *map(self.rounded, args[first : first + 2]), *args[first + 2 :])
        return function(*args, **(kwargs or {}))

    def rounded(self, factor: Tensor) -> Tensor:
        bits = factor.contiguous().view(torch.int32)
        return ((bits + self._half) & ~0x1FFF).view(torch.float32)


@pytest.mark.parametrize("truncated", [False, True], ids=["rounded", "truncated"])
@pytest.mark.parametrize("variant", variants())
def test_the_preflight_accepts_products_in_tf32(variant, truncated):
    """Measured: up to 4.0e-3 rounded, 6.1e-3 truncated; every variant is off by more than strict float32 may be."""
    build = partial(TorchBackend().build, device="cpu")
    with FactorsInTF32(truncated) as mode:
        report = preflight(build, variant_config(variant), "float32", "tf32", all_masks=has_all_masks(variant))
    assert LIMIT["float32"] < report.worst.max_rel < ROUNDED_LIMIT["tf32"]
    assert mode.products > 200
