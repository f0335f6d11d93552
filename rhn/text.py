"""Makes text of unknown origin harmless before it is shown."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` for a terminal: every control character except line ends and tabs is shown as its code, such as \\x1b."""
    return "".join(c if c in "\n\t" or not _is_control(c) else _code(c) for c in text)


def one_line(text: str) -> str:
    """`text` in one line: characters that are not printable are shown as their codes, as in `repr`."""
    return "".join(c if c.isprintable() else _code(c) for c in text)


def _is_control(symbol: str) -> bool:
    code = ord(symbol)
    return (
        code < 32
        or 127 <= code < 160
        or 0xD800 <= code < 0xE000  # a surrogate has no encoding
        or 0x202A <= code <= 0x202E  # these turn the direction of writing
        or 0x2066 <= code <= 0x2069
    )


def _code(symbol: str) -> str:
    return symbol.encode("unicode_escape").decode("ascii")
