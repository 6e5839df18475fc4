"""Every import of the repository, as read from its source: at module level, in functions and under TYPE_CHECKING."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
APPS = ("analytics", "audit", "configuration", "consumers", "events", "jobs", "keys", "operators", "routes")
PACKAGES = (*APPS, "apimgmt", "benchmarks", "demo", "gateway")


@dataclass(frozen=True, slots=True)
class Import:
    """One name that a module imports: ``from module import name``, or ``import module`` with an empty name."""

    importer: str
    module: str
    name: str = ""
    line: int = 0


def read_imports(root: Path = ROOT) -> list[Import]:
    """Return all imports of the product's packages, tests and migrations left out."""
    return [found for path in source_files(root) for found in _imports_of(path, root)]


def source_files(root: Path = ROOT) -> Iterator[Path]:
    """Yield the product's Python files, tests and migrations left out."""
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).parts
            if "tests" not in parts and "migrations" not in parts and path.name != "conftest.py":
                yield path


def module_name(path: Path, root: Path = ROOT) -> str:
    """Return the dotted name of a file."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports_of(path: Path, root: Path) -> Iterator[Import]:
    importer = module_name(path, root)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(importer, alias.name, line=node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield Import(importer, node.module, alias.name, node.lineno)


def graph_of(imports: Iterable[Import], modules: frozenset[str]) -> dict[str, set[str]]:
    """Return which modules each module imports, among those given."""
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for found in imports:
        submodule = f"{found.module}.{found.name}"
        target = submodule if submodule in modules else found.module
        if target in modules and target != found.importer and found.importer in graph:
            graph[found.importer].add(target)
    return graph


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of one import cycle, or an empty list if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle
    return []
