"""The rules: no import cycle, no private name of another module, and the inner shape of every app."""

from __future__ import annotations

from collections.abc import Iterable

from tests.architecture.imports import APPS, Import, cycle_in, graph_of, module_name, read_imports, source_files

FILE_LINES_MAX = 400
MODELS_MAY_NOT = ("celery", "channels", "django.contrib.admin", "django.http", "rest_framework", "unfold")
SERVICES_MAY_NOT = ("channels", "django.contrib.admin", "django.http", "rest_framework", "unfold")


def violations(planted: Iterable[Import] = ()) -> list[str]:
    """Return a line for each violation in the source, with the planted imports added to it."""
    imports = [*read_imports(), *planted]
    return [*_cycles(imports), *_private_names(imports), *_app_shapes(imports), *_long_files()]


def _cycles(imports: list[Import]) -> list[str]:
    modules = frozenset(module_name(path) for path in source_files())
    cycle = cycle_in(graph_of(imports, modules))
    return [f"import cycle: {' -> '.join(cycle)}"] if cycle else []


def _private_names(imports: list[Import]) -> list[str]:
    return [
        f"{found.importer}:{found.line} imports the private name {found.name} of {found.module}"
        for found in imports
        if found.name.startswith("_") and not found.name.startswith("__") and _is_ours(found.module)
    ]


def _is_ours(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] in (*APPS, "apimgmt", "gateway")


def _app_shapes(imports: list[Import]) -> list[str]:
    lines = []
    for found in imports:
        app, _, part = found.importer.partition(".")
        forbidden = {"models": MODELS_MAY_NOT, "services": SERVICES_MAY_NOT}.get(part, ())
        if app in APPS and any(_is_within(found, name) for name in forbidden):
            lines.append(f"{found.importer}:{found.line} imports {found.module}, which {part} may not")
    return lines


def _is_within(found: Import, package: str) -> bool:
    whole = f"{found.module}.{found.name}"
    return found.module == package or found.module.startswith(f"{package}.") or whole == package


def _long_files() -> list[str]:
    lengths = ((path, len(path.read_text().splitlines())) for path in source_files())
    return [f"{path}: {lines} lines, at most {FILE_LINES_MAX}" for path, lines in lengths if lines > FILE_LINES_MAX]
