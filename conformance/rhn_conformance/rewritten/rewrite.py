"""Makes backends from the source text of the reference, with some places changed.

This is used for mutants, whose one mistake the suite must notice, and for the reference in decimal arithmetic. Each
change must apply to exactly one place, so that an edit of the reference cannot silently make it ineffective.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from types import ModuleType

from rhn import reference_backend
from rhn.backend import Backend
from rhn.spec import layers, reference

Edit = tuple[str, str]  # text, its replacement


def rewritten_reference(name: str, edits: Sequence[Edit], everywhere: Sequence[Edit] = ()) -> Backend:
    """The reference backend, called `name`, with its source changed.

    Args:
        name: of the backend.
        edits: each text must occur exactly once in `rhn.spec.reference`, `rhn.spec.layers` and `rhn.reference_backend`
            taken together.
        everywhere: these are replaced wherever they occur.

    Raises:
        ValueError: a text of `edits` does not occur exactly once.
    """
    sources = {module: inspect.getsource(module) for module in (reference, layers, reference_backend)}
    for old, new in edits:
        count = sum(source.count(old) for source in sources.values())
        if count != 1:
            raise ValueError(f"{name}: the text {old!r} occurs {count} times in the reference, it must occur once")
        sources = {module: source.replace(old, new) for module, source in sources.items()}
    for old, new in everywhere:
        sources = {module: source.replace(old, new) for module, source in sources.items()}

    # From the lowest to the highest: each imports the changed modules below it in place of the original ones.
    new_reference = _execute(reference, sources[reference], name)
    new_layers = _execute(layers, sources[layers], name)
    _put_into(new_layers, new_reference, ("layer_forward", "layer_backward"))
    new_backend = _execute(reference_backend, sources[reference_backend], name)
    _put_into(new_backend, new_layers, ("layers_forward", "layers_gradients"))
    new_backend.__dict__["reference"] = new_reference
    backend: Backend = new_backend.__dict__["ReferenceBackend"]()
    backend.name = name
    return backend


def _execute(module: ModuleType, source: str, name: str) -> ModuleType:
    new = ModuleType(f"{module.__name__}[{name}]")
    sys.modules[new.__name__] = new  # a dataclass looks here for its own module
    try:
        exec(compile(source, f"<{new.__name__}>", "exec"), new.__dict__)
    finally:
        del sys.modules[new.__name__]
    return new


def _put_into(module: ModuleType, source: ModuleType, names: Sequence[str]) -> None:
    module.__dict__.update({name: source.__dict__[name] for name in names})
