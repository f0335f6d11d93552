"""The order of the tests, for the sake of time."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What trains in all ports takes longest: begun first, it does not keep one process busy at the end."""
    items.sort(key=lambda item: "test_ports_agree" not in item.nodeid)
