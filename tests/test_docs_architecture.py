"""docs/architecture.md lists every room and module of ``gateway/``, and names only files that exist."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GATEWAY = ROOT / "gateway"
PAGE = ROOT / "docs" / "architecture.md"
FLOORS = "the floors of the data plane"
"""How the name of the contract in ``pyproject.toml`` begins."""
PRINTED = re.compile(r"(<!-- Printed by (\w+)\(\)[^\n]*-->\n).*?(<!-- End -->)", re.DOTALL)
ROLE = re.compile(r":\w+:`[~.]?([^`]+)`")


def floors() -> dict[str, int]:
    """Return the floor of each room, as the import contract defines it; 1 is the top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [contract for contract in contracts if contract["name"].startswith(FLOORS)]
    layers = enumerate(contract["layers"], start=1)
    return {room.strip(): number for number, layer in layers for room in re.split("[|:]", layer)}


def duty(path: Path) -> str:
    """Return the first line of a module's docstring, as Markdown."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    line = docstring.partition("\n")[0].replace("``", "`").replace("|", "\\|")
    return ROLE.sub(r"`\1`", line)


def modules_of(room: str) -> list[Path]:
    """Return the modules of a room that is a package, without its tests; no modules for a room of one file."""
    found = sorted((GATEWAY / room).rglob("*.py"), key=lambda path: (len(path.parts), path))
    return [
        path
        for path in found
        if "tests" not in path.parts and (path.name != "__init__.py" or path.parent.parent != GATEWAY)
    ]


def rooms() -> str:
    """Print the rooms, top floor first."""
    lines = ["| floor | room | duty |", "|--:|---|---|"]
    for room, floor in floors().items():
        is_package = (GATEWAY / room).is_dir()
        name, source = (
            (f"{room}/", GATEWAY / room / "__init__.py") if is_package else (f"{room}.py", GATEWAY / f"{room}.py")
        )
        lines.append(f"| {floor} | `{name}` | {duty(source)} |")
    return "\n".join(lines) + "\n"


def modules() -> str:
    """Print the modules of each package, in the order of the rooms."""
    lines = ["| module | duty |", "|---|---|"]
    for path in [path for room in floors() for path in modules_of(room)]:
        name = path.relative_to(GATEWAY).as_posix().replace("__init__.py", "")
        lines.append(f"| `{name}` | {duty(path)} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return the page with its printed sections renewed."""
    sections = {"rooms": rooms, "modules": modules}
    return PRINTED.sub(lambda found: f"{found[1]}\n{sections[found[2]]()}\n{found[3]}", PAGE.read_text())


def test_the_page_is_as_printed():
    assert PAGE.read_text() == page(), "print it again: .venv/bin/python -m tests.test_docs_architecture"


@pytest.mark.parametrize(
    "room", sorted(path.stem for path in GATEWAY.glob("[a-z]*") if path.name not in ("conftest.py", "tests"))
)
def test_every_room_appears_with_its_floor(room):
    assert re.search(rf"^\| {floors()[room]} \| `{room}(/|\.py)` \| \w.+ \|$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "named", sorted(set(re.findall(r"`((?:\w+/)+\w+\.py)`", PAGE.read_text().partition("### Modules")[0])))
)
def test_every_file_that_the_page_names_exists(named):
    assert (ROOT / named).is_file()


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE} printed\n")
