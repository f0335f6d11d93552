"""Conformance suite for Recurrent Highway Network backends; see the README beside this package.

Because of the plug-in, pytest imports this package in every project of an environment. So it imports nothing itself.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import MetaPathFinder


class _MovedModules(MetaPathFinder):
    """Lets `rhn` look for modules of this package that are not found: they may have moved."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name.startswith("rhn_conformance."):
            importlib.import_module("rhn.moved").keep_old_names()  # which comes after this one in sys.meta_path


if "rhn" not in sys.modules:
    sys.meta_path.append(_MovedModules())
