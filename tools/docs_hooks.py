"""What MkDocs calls while it builds the site from docs/; see mkdocs.yml.

Files of the repository that are pages as they are (SPEC.md and others) are taken from where they stand; the page of
options is made of the table of options.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

from docs_pages import COPIED, ROOT, included, options_page, recipe_table, with_links_of_the_site, with_wide_indent
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor
from mkdocs.structure.files import File

_SHIM = "https://unpkg.com/iframe-worker/shim"
_OUR_SHIM = "assets/iframe-worker/shim.js"


def on_config(config: Any) -> Any:
    """Let docstrings show their examples."""
    config.markdown_extensions.append(_Examples())
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not in docs/."""
    for source, target in COPIED.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, "options.md", content=options_page()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in what is generated, and make links and lists those of MkDocs."""
    target = page.file.src_uri
    source = {page: file for file, page in COPIED.items()}.get(target, f"docs/{target}")
    markdown = markdown.replace("<!-- table of recipes -->", recipe_table())
    markdown = re.sub(r"<!-- file (\S+) -->", lambda match: included(match[1]), markdown)
    return with_wide_indent(with_links_of_the_site(markdown, source, target))


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Load the one script that the theme takes from elsewhere from the site."""
    return output.replace(_SHIM, posixpath.relpath(_OUR_SHIM, posixpath.dirname(page.file.dest_uri) or "."))


def on_post_template(output_content: str, **_: Any) -> str:
    """Likewise on the page that a server shows for a wrong address, wherever that is."""
    return output_content.replace(_SHIM, f"/{_OUR_SHIM}")


class _Examples(Extension):
    """Markdown in which a block of `>>>` lines is code, as in a docstring; CommonMark sees quotations."""

    def extendMarkdown(self, md: Any) -> None:  # noqa: N802
        md.preprocessors.register(_FenceExamples(md), "examples", 100)


class _FenceExamples(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        return re.sub(
            r"(?:^|(?<=\n\n))(>>> .*?)(?=\n\n|\Z)", r"```pycon\n\1\n```", "\n".join(lines), flags=re.DOTALL
        ).split("\n")
