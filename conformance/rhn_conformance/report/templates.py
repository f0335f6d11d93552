"""The templates of the report. All values are escaped."""

from __future__ import annotations

import jinja2

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("rhn_conformance.report", ""), autoescape=True, undefined=jinja2.StrictUndefined
)
