"""Modules that have moved: whoever imports one by its old name gets it, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# Old name: new name. All of them moved with version 0.2.
MOVED = {
    "rhn.spec.checkpoint": "rhn.checkpoint",
    "rhn.spec.windows": "rhn.spec.arguments",
    "rhn_conformance.compare": "rhn.compare",
    "rhn_conformance.preflight": "rhn.preflight",
    "rhn_torch.cuda_graph": "rhn_torch.gpu.cuda_graph",
    "rhn_torch.matmul": "rhn_torch.precision",
    "rhn_torch.triton_kernels": "rhn_torch.gpu.triton_kernels",
    "rhn_torch.triton_recurrence": "rhn_torch.gpu.triton_recurrence",
}


class _MovedModule(MetaPathFinder, Loader):
    """Finds a module under its old name."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of the new name in the place of the empty one that Python has made."""
        new_name = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} has moved to {new_name}", DeprecationWarning, stacklevel=2)
        sys.modules[module.__name__] = importlib.import_module(new_name)


def keep_old_names() -> None:
    """Let Python find the modules of `MOVED`, after everything that is really there."""
    if not any(isinstance(finder, _MovedModule) for finder in sys.meta_path):
        sys.meta_path.append(_MovedModule())
