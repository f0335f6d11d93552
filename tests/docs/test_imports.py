"""Who may import whom: one table, held against the imports of every file, and shown by CONTRIBUTING.md."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {"rhn": ROOT, "rhn_torch": ROOT, "rhn_tf": ROOT, "rhn_jax": ROOT}
SOURCES |= {"rhn_datasets": ROOT / "datasets", "rhn_conformance": ROOT / "conformance"}

# Part: what it may import of this project beside itself, and of other packages. The first part counts that a module's
# name begins with.
MAY_IMPORT: dict[str, tuple[str, str]] = {
    "rhn.spec": ("", "numpy"),
    "rhn.training.command_line": ("rhn.spec, rhn, rhn.training, rhn_datasets", "sacred, numpy"),
    "rhn.training.search.optuna_study": ("rhn.training", "optuna"),
    "rhn.training": (
        "rhn.spec, rhn, rhn.training.search.optuna_study, rhn_datasets",
        "numpy, matplotlib, tqdm, filelock, jinja2, markupsafe, yaml, tensorboardX",
    ),
    "rhn": ("rhn.spec", "numpy, safetensors"),
    "rhn_torch.train": ("rhn.training.command_line", ""),
    "rhn_torch.search": ("rhn.training", ""),
    "rhn_tf.train": ("rhn.training.command_line", ""),
    "rhn_tf.search": ("rhn.training", ""),
    "rhn_jax.train": ("rhn.training.command_line", ""),
    "rhn_jax.search": ("rhn.training", ""),
    "rhn_torch.gpu": ("rhn.spec, rhn, rhn_torch", "torch, triton"),
    "rhn_torch": ("rhn.spec, rhn, rhn_torch.gpu", "torch, numpy"),
    "rhn_tf.convert": ("rhn.spec, rhn, rhn_tf, rhn_datasets", "tensorflow, numpy"),
    "rhn_tf": ("rhn.spec, rhn", "tensorflow, keras, numpy"),
    "rhn_jax": ("rhn.spec, rhn", "jax, flax, optax, numpy"),
    "rhn_datasets": ("", "numpy, requests, urllib3, filelock, tqdm"),
    "rhn_conformance": ("rhn.spec, rhn, rhn_datasets", "numpy, safetensors, jinja2, markupsafe, pytest, hypothesis"),
}
FRAMEWORKS = {"torch", "tensorflow", "keras", "jax", "flax", "optax"}
ONE_FRAMEWORK = ({"torch"}, {"tensorflow", "keras"}, {"jax", "flax", "optax"})


def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    found = {}
    for package, place in SOURCES.items():
        for file in sorted((place / package).rglob("*.py")):
            parts = file.relative_to(place).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


def imports(file: Path, *, of_types: bool = False) -> Iterator[str]:
    """Dotted names that a file imports, anywhere in it; those for type checkers alone only on request."""
    pending: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not of_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module
        pending.extend(ast.iter_child_nodes(node))


def part_of(module: str) -> str:
    return next(part for part in MAY_IMPORT if module == part or module.startswith(f"{part}."))


def listed(names: str) -> set[str]:
    return {name.strip() for name in names.split(",")} - {""}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_what_its_part_may(module: str) -> None:
    part = part_of(module)
    own, others = MAY_IMPORT[part]
    for name in imports(MODULES[module], of_types=True):
        top = name.partition(".")[0]
        if top in SOURCES:
            allowed = part_of(name) in {part, *listed(own)}
            assert allowed, f"{module} imports {name}: {part} may import {own or 'nothing of this project'}"
        elif top not in sys.stdlib_module_names:
            assert top in listed(others), f"{module} imports {name}: {part} may import {others or 'nothing else'}"


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_two_frameworks(module: str) -> None:
    used = {name.partition(".")[0] for name in imports(MODULES[module], of_types=True)} & FRAMEWORKS
    assert any(used <= framework for framework in ONE_FRAMEWORK), f"{module} imports {used}"


def test_nobody_imports_the_conformance_suite() -> None:
    for module, file in MODULES.items():
        if not module.startswith("rhn_conformance"):
            assert not any(name.startswith("rhn_conformance") for name in imports(file, of_types=True)), module


def test_there_is_no_import_circle() -> None:
    graph = {
        module: {name for name in imports(file) if name in MODULES and name != module}
        for module, file in MODULES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_ports_have_the_same_files() -> None:
    files = {
        port: {str(file.relative_to(ROOT / port)) for file in (ROOT / port).rglob("*.py")}
        for port in ("rhn_torch", "rhn_tf", "rhn_jax")
    }
    common = set.intersection(*files.values())
    peculiar = {port: sorted(names - common) for port, names in files.items() if names - common}
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for port, names in peculiar.items():
        for name in names:
            places = [f"{port}/{name}", f"{port}/{Path(name).parent}"]  # the file, or its whole folder
            assert any(f"`{place}`" in text for place in places), f"CONTRIBUTING.md must say why only {port} has {name}"


def test_no_source_file_is_longer_than_350_lines() -> None:
    long = {m: len(f.read_text().splitlines()) for m, f in MODULES.items() if m != "rhn.spec.reference"}
    assert {module: lines for module, lines in long.items() if lines > 350} == {}


def table() -> str:
    """The table as CONTRIBUTING.md shows it."""
    rows = [f"| `{part}` | {_quoted(own)} | {_quoted(others)} |" for part, (own, others) in MAY_IMPORT.items()]
    return "\n".join(["| part | may import of this project | and of other packages |", "|---|---|---|", *rows])


def _quoted(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split(", ")) if names else "nothing"


def test_contributing_shows_the_table() -> None:
    assert table() in (ROOT / "CONTRIBUTING.md").read_text(), f"CONTRIBUTING.md must show:\n{table()}"
