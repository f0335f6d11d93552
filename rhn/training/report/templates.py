"""Makes pages from templates. All values are escaped, and an unknown name is an error."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters["base64"] = lambda content: b64encode(content).decode()


def render(template: str, **values: Any) -> bytes:
    """The page that the file `template` of this folder makes from `values`, as UTF-8."""
    # A lone surrogate, from a folder name that is not UTF-8, cannot be encoded: it is written as an escape sequence.
    return _ENVIRONMENT.get_template(template).render(values).encode(errors="backslashreplace")
