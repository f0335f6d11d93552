"""pytest options for `pytest --pyargs rhn_conformance --rhn-backend NAME`.

pytest loads this module in every project of an environment in which the package is installed. So it imports nothing
heavy, and does nothing unless the options are used.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options; `test_conformance.py` reads them."""
    group = parser.getgroup("rhn-conformance", "conformance of Recurrent Highway Network backends")
    group.addoption(
        "--rhn-backend", action="append", default=[], metavar="NAME", help="backend to test; repeat for several"
    )
    group.addoption("--rhn-dtype", action="append", default=[], metavar="DTYPE", help="float64 or float32; both")
    group.addoption("--rhn-device", metavar="NAME", help="device that the backends are to use")
    group.addoption("--rhn-expected-failures", metavar="FILE", help="list of expected failures of the one backend")
