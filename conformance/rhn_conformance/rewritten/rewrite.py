"""Backends made from the text of the reference with some places changed.

Two things are made like this: mutants, whose one wrong line the suite must notice, and the reference in decimal
arithmetic. Each change must apply, and to one place only, so that an edit of the reference cannot silently disarm it.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from types import ModuleType

from rhn import reference_backend
from rhn.backend import Backend
from rhn.spec import reference

Edit = tuple[str, str]  # text, its replacement


def rewritten_reference(name: str, edits: Sequence[Edit], everywhere: Sequence[Edit] = ()) -> Backend:
    """The reference backend, called `name`, with its source changed.

    Args:
        name: of the backend.
        edits: each text must occur exactly once in `rhn.spec.reference` and `rhn.reference_backend` taken together.
        everywhere: these are replaced wherever they occur.

    Raises:
        ValueError: a text of `edits` does not occur exactly once.
    """
    sources = {module: inspect.getsource(module) for module in (reference, reference_backend)}
    for old, new in edits:
        count = sum(source.count(old) for source in sources.values())
        if count != 1:
            raise ValueError(f"{name}: the text {old!r} occurs {count} times in the reference, it must occur once")
        sources = {module: source.replace(old, new) for module, source in sources.items()}
    for old, new in everywhere:
        sources = {module: source.replace(old, new) for module, source in sources.items()}

    new_reference = _execute(f"{reference.__name__}[{name}]", sources[reference])
    new_backend = _execute(f"{reference_backend.__name__}[{name}]", sources[reference_backend])
    new_backend.__dict__["reference"] = new_reference  # instead of the one that it imported
    backend: Backend = new_backend.__dict__["ReferenceBackend"]()
    backend.name = name
    return backend


def _execute(name: str, source: str) -> ModuleType:
    module = ModuleType(name)
    exec(compile(source, f"<{name}>", "exec"), module.__dict__)
    return module
