"""Makes pages from the templates in the folder `pages`. All values are escaped, and an unknown name is an error."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rhn.markdown import escaped
from rhn.text import one_line


def _escaped_for_markdown(value: Any) -> str:
    return value if isinstance(value, Markup) else escaped(str(value))


_SETTINGS: dict[str, Any] = {
    "loader": FileSystemLoader(Path(__file__).with_name("pages"), encoding="utf-8"),
    "undefined": StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
    "keep_trailing_newline": True,
}
_HTML = Environment(autoescape=True, **_SETTINGS)
_HTML.filters["base64"] = lambda content: b64encode(content).decode()
_MARKDOWN = Environment(autoescape=False, finalize=_escaped_for_markdown, **_SETTINGS)
# Of a line in a block of code, where nothing is markup, and of such a block.
_MARKDOWN.filters["code"] = lambda line: Markup(one_line(line))
_MARKDOWN.filters["indented"] = lambda text: Markup("\n".join(f"    {one_line(line)}" for line in text.split("\n")))


def render(template: str, **values: Any) -> bytes:
    """The page that a template of the folder `pages` makes from `values`, as UTF-8: HTML, or Markdown (`.md.j2`)."""
    environment = _MARKDOWN if template.endswith(".md.j2") else _HTML
    # A lone surrogate, from a folder name that is not UTF-8, cannot be encoded: it is written as an escape sequence.
    return environment.get_template(template).render(values).encode(errors="backslashreplace")
