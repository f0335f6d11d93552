"""Memory that shows whether it was written."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Poison(TorchDispatchMode):
    """Within it, and within graphs that are captured in it, memory that nobody has written yet is NaN."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        return result.fill_(torch.nan) if "empty" in function.name() and result.is_floating_point() else result
