"""How far the factors of matrix products are rounded.

PyTorch's own switch for bf16 is `torch.autocast`, which the layers follow: each factor of a product is rounded to bf16,
and so is the product, whose sum is kept in float32; states, gates, everything pointwise and the gradients stay float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from rhn_torch.matmul import ONEDNN, fp32_precision, onednn_keeps_float32


def factor_dtype(parameter: Tensor) -> torch.dtype:
    """What factors of products with `parameter` are rounded to: its own dtype, or, if float32, that of autocast."""
    device_type = parameter.device.type
    if (
        parameter.dtype == torch.float32
        and torch.amp.is_autocast_available(device_type)
        and torch.is_autocast_enabled(device_type)
    ):
        return torch.get_autocast_dtype(device_type)
    return parameter.dtype


def add_product(offset: Tensor, a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
    """out = offset + a @ b, matrices or batches of them; a and b may be of a lower precision than the others."""
    if a.dtype == out.dtype:
        return (torch.addmm if a.dim() == 2 else torch.baddbmm)(offset, a, b, out=out)
    return torch.add(offset, a @ b, out=out)


@contextmanager
def products(precision: str, device: torch.device) -> Iterator[None]:
    """Within it, the factors of products on `device` may be rounded to `precision`, and no further.

    Whatever the process has set for its other products is ignored here and found again afterwards.

    Args:
        precision: one of `rhn.backend.PRECISIONS`. "tf32" makes a difference on a GPU only.
        device: where the products are computed.
    """
    if device.type == "cuda":
        library, setting = torch.backends.cuda.matmul, "ieee" if precision == "float32" else "tf32"
    else:
        library, setting = ONEDNN, "bf16" if onednn_keeps_float32() else "ieee"
    bf16 = precision == "bf16" and has_bf16_products(device)
    # A cached cast would outlive the update of its parameter in a captured CUDA graph, and saves nothing here.
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16, cache_enabled=False)
    with fp32_precision(library, setting), autocast:
        yield


def has_bf16_products(device: torch.device) -> bool:
    """Whether `device` multiplies bf16 in hardware. Where it does not, products in bf16 are slower than in float32:
    on a CPU with AVX2 alone 50 times."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported()  # which every CPU with AMX has, too
