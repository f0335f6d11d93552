"""Which library computes float32 matrix products on a CPU."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

_mkldnn: Any = torch.backends.mkldnn  # torch gives it its attributes when it is imported
ONEDNN = _mkldnn.matmul

# Errors of the two libraries differ with their order of summation. With factors rounded to bf16 the error is thousands
# of times that of float32.
_MOST_TIMES_THE_DEFAULT_ERROR = 4.0


@contextmanager
def fp32_precision(library: Any, setting: str) -> Iterator[None]:
    """Within it, `library.fp32_precision` is `setting`; library is `ONEDNN` or `torch.backends.cuda.matmul`."""
    before = library.fp32_precision
    library.fp32_precision = setting
    try:
        yield
    finally:
        library.fp32_precision = before


@functools.lru_cache(maxsize=1)
def onednn_keeps_float32() -> bool:
    """Whether float32 products should go to oneDNN, with `torch.backends.mkldnn.matmul.fp32_precision = "bf16"`.

    torch's default library is MKL, which uses AVX2 on AMD processors even where they have AVX-512; oneDNN uses AVX-512,
    and takes half the time. The setting *permits* oneDNN to round factors to bf16, which it does where there is AMX.
    So it is proven here, once per process, that on this machine it does not.

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
    """As Linux says; elsewhere the choice has not been measured."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text()


def _error_of_product(setting: str) -> float:
    """Relative error, in norm, of a float32 product of the size of a micro-step."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(20, 830, generator=generator), torch.randn(830, 1660, generator=generator)
    exact = a.double() @ b.double()
    with fp32_precision(ONEDNN, setting):
        return float((a @ b - exact).norm() / exact.norm())
