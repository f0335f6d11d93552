"""On what a run was made: backend, versions, machine."""

from __future__ import annotations

from importlib.metadata import version

from rhn.backend import Backend
from rhn.machine import describe_machine


def describe_environment(backend: Backend) -> dict[str, str]:
    """Names and versions for the record of a run, in the order in which they are shown."""
    return {
        "backend": backend.name,
        **backend.describe(),
        "recurrent-highway-networks": version("recurrent-highway-networks"),
        **describe_machine(),
    }
