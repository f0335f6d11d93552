"""On what a run was made: backend, versions, machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from rhn.backend import Backend


def describe_environment(backend: Backend) -> dict[str, str]:
    """Names and versions for the record of a run, in the order in which they are shown."""
    return {
        "backend": backend.name,
        **backend.describe(),
        "recurrent-highway-networks": version("recurrent-highway-networks"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(os.cpu_count()),
    }


def _processor() -> str:
    """Name of the CPU: the kernel's on Linux, Python's guess elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
