"""Checks the built site: every link leads somewhere, and nothing is loaded from elsewhere.

python tools/check_site.py FOLDER
"""

from __future__ import annotations

import posixpath
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

# What a browser loads by itself, by element.
LOADED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}
# A page may say where it stands on the web: these kinds of `<link>` are not loaded.
NOT_LOADED = {"canonical", "prev", "next", "alternate"}


class Page(HTMLParser):
    """The identifiers of a page, the links on it, and what a browser loads for it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.identifiers: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.identifiers.update(attributes[name] for name in ("id", "name") if name in attributes)
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if attributes.get(LOADED.get(tag, "")) and attributes.get("rel") not in NOT_LOADED:
            self.loaded.append(attributes[LOADED[tag]])


def problems(site: Path) -> list[str]:
    """One line for each link that leads nowhere, and each thing that is loaded from elsewhere."""
    pages = {file.relative_to(site).as_posix(): Page(file) for file in sorted(site.rglob("*.html"))}
    found = []
    for name, page in pages.items():
        found += [f"{name} loads {url}" for url in page.loaded if re.match(r"(https?:)?//", url)]
        if name == "404.html":  # its links are made for the root of a server
            continue
        for url in [*page.links, *page.loaded]:
            if re.match(r"[a-z]+:|//", url):
                continue
            path, anchor = urldefrag(unquote(url))
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
            if not (site / target).is_file():
                found.append(f"{name} links to {url}, which does not exist")
            elif anchor and target in pages and anchor not in pages[target].identifiers:
                found.append(f"{name} links to {url}, and there is no such place on that page")
    for file in sorted(site.rglob("*.css")):
        urls = re.findall(r"url\(([^)]+)\)", file.read_text(encoding="utf-8"))
        found += [f"{file.relative_to(site)} loads {url}" for url in urls if re.match(r"[\"']?(https?:)?//", url)]
    return found


def main() -> None:
    found = problems(Path(sys.argv[1]))
    print("\n".join(found) or "every link leads somewhere, and nothing is loaded from elsewhere")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
