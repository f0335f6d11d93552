"""The precision of matrix products: how far their factors are rounded, and which library computes them on a CPU.

PyTorch's own switch for bf16 is `torch.autocast`, which the layers follow. Each factor of a product is rounded to bf16;
sums, states, gates, pointwise operations and gradients stay in float32. On a GPU the results of products in the
recurrence and in the loss stay in float32, too; on a CPU, and in the input projection, they are rounded to bf16.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

_mkldnn: Any = torch.backends.mkldnn  # torch sets its attributes at run time, which mypy cannot see
ONEDNN = _mkldnn.matmul

# Errors of the two libraries differ with their order of summation. With factors rounded to bf16 the error is thousands
# of times larger than in float32.
_MOST_TIMES_THE_DEFAULT_ERROR = 4.0


class Precision(NamedTuple):
    """How far the factors of one model's matrix products may be rounded.

    `TorchBackend.build` makes one for each model. It is passed on by torch's own switches, not by an argument: the
    model computes within `products()`, which sets them for this model only, as a user's `torch.autocast` sets them
    around a layer. The recurrences and the loss read the switches once, on entry (`factor_dtype`), never inside a loop;
    their backward uses what their forward found.

    Attributes:
        name: one of `rhn.backend.PRECISIONS`. "tf32" makes a difference on a GPU only.
        device: where the products are computed.
    """

    name: str
    device: torch.device

    @contextmanager
    def products(self) -> Iterator[None]:
        """Within it, the factors of products may be rounded to this precision, and no further.

        The settings of the process for other products are ignored here, and restored afterwards. Of torch's two
        switches for TF32, this uses the new one. Within it, torch refuses to read the old one, `allow_tf32`.
        """
        if self.device.type == "cuda":
            library, setting = torch.backends.cuda.matmul, "ieee" if self.name == "float32" else "tf32"
        else:
            library, setting = ONEDNN, "bf16" if onednn_keeps_float32() else "ieee"
        bf16 = self.name == "bf16" and has_bf16_products(self.device)
        # A cached cast would outlive the update of its parameter in a captured CUDA graph, and saves nothing here.
        autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16, cache_enabled=False)
        with fp32_precision(library, setting), bf16_sums_in_float32(), autocast:
            yield


def factor_dtype(parameter: Tensor) -> torch.dtype:
    """The dtype of factors of products with `parameter`: its own; for float32 under autocast, autocast's."""
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
    if _keeps_sums(a, out):  # torch.baddbmm has an `out_dtype` too, but with `out` it leaves the offset out
        return product(a, b, out=out).add_(offset)
    return torch.add(offset, a @ b, out=out)


def product(a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
    """out = a @ b, matrices or batches of them; a and b may be of a lower precision than `out`."""
    multiply = torch.mm if a.dim() == 2 else torch.bmm
    if a.dtype == out.dtype:
        return multiply(a, b, out=out)
    if _keeps_sums(a, out):
        return multiply(a, b, out_dtype=out.dtype, out=out)
    return out.copy_(multiply(a, b))


def _keeps_sums(factor: Tensor, out: Tensor) -> bool:
    """Whether the sums of a product of factors in this lower precision can be returned in float32."""
    return out.is_cuda and out.dtype == torch.float32 and factor.dtype in (torch.bfloat16, torch.float16)


def has_bf16_products(device: torch.device) -> bool:
    """Whether `device` multiplies bf16 in hardware. Where it does not, products in bf16 are slower than in float32:
    on a CPU with AVX2 alone 50 times."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported()  # which every CPU with AMX has, too


@contextmanager
def fp32_precision(library: Any, setting: str) -> Iterator[None]:
    """Within it, `library.fp32_precision` is `setting`; library is `ONEDNN` or `torch.backends.cuda.matmul`."""
    before = library.fp32_precision
    library.fp32_precision = setting
    try:
        yield
    finally:
        library.fp32_precision = before


@contextmanager
def bf16_sums_in_float32() -> Iterator[None]:
    """Within it, a GPU that sums a product of bf16 in parts adds the parts in float32, not in bf16."""
    library: Any = torch.backends.cuda.matmul
    before = library.allow_bf16_reduced_precision_reduction
    library.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        library.allow_bf16_reduced_precision_reduction = before


@functools.lru_cache(maxsize=1)
def onednn_keeps_float32() -> bool:
    """Whether float32 products should go to oneDNN, with `torch.backends.mkldnn.matmul.fp32_precision = "bf16"`.

    torch's default library is MKL, which uses AVX2 on AMD processors even where they have AVX-512; oneDNN uses AVX-512,
    and takes half the time. The setting *permits* oneDNN to round factors to bf16, which it does where there is AMX.
    So this function tests, once per process, that oneDNN does not round on this machine.

    Nothing is timed: a resumed run must choose as the interrupted one did. Where there is only AVX2, oneDNN is the
    slower one (measured: 1 to 2.5 times), and on Intel processors MKL uses AVX-512 itself.
    """
    if not (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
        and _is_amd()
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
    ):
        return False
    return _error_of_product("bf16") <= _MOST_TIMES_THE_DEFAULT_ERROR * _error_of_product("ieee")


def _is_amd() -> bool:
    """Whether Linux says so; on other systems the choice has not been measured."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text()


def _error_of_product(setting: str) -> float:
    """Relative error, in norm, of a float32 product of the size of a micro-step."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(20, 830, generator=generator), torch.randn(830, 1660, generator=generator)
    exact = a.double() @ b.double()
    with fp32_precision(ONEDNN, setting):
        return float((a @ b - exact).norm() / exact.norm())
