"""What an imported document asks for, and the way that its local references go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from configuration.documents import Document

Path = tuple[str | int, ...]
HOPS_MAX = 20
DEFINITIONS_MAX = 500


@dataclass(frozen=True)
class Wanted:
    """One object: its section, the fields that the document has a say in, and where in the document it stands."""

    section: str
    values: dict[str, Any]
    path: Path


def follow(document: Document, node: Any, path: Path) -> tuple[Any, Path]:
    """Give what a node stands for, through every ``$ref``, and where that is. Raises DocumentError."""
    for _ in range(HOPS_MAX):
        if not isinstance(node, Mapping) or not isinstance(node.get("$ref"), str):
            return node, path
        node, path = _target(document, node["$ref"], path)
    raise document.error("its references lead nowhere", *path)


def mapping(document: Document, node: Any, path: Path) -> tuple[dict[str, Any], Path]:
    """Give a mapping as :func:`follow` does. Raises DocumentError for anything else."""
    found, where = follow(document, node, path)
    if not isinstance(found, dict):
        raise document.error("must be a mapping", *where)
    return found, where


def self_contained(document: Document, schema: dict[str, Any], path: Path) -> dict[str, Any]:
    """Give a schema that needs no other part of its document: what it refers to lies in its ``$defs``."""
    gathering = _Gathering(document, has_own="$defs" in schema)
    found: dict[str, Any] = gathering.of(schema, path)
    if gathering.definitions:
        found["$defs"] = {**found.get("$defs", {}), **gathering.definitions}
    return found


class _Gathering:
    """The definitions that a schema refers to, also through each other and in circles."""

    def __init__(self, document: Document, *, has_own: bool) -> None:
        self.definitions: dict[str, Any] = {}
        self._document = document
        self._has_own = has_own
        self._names: dict[str, str] = {}

    def of(self, node: Any, at: Path) -> Any:
        """Give a part of the schema with its references turned to the definitions. Raises DocumentError."""
        if isinstance(node, list):
            return [self.of(value, (*at, number)) for number, value in enumerate(node)]
        if not isinstance(node, dict):
            return node
        if not isinstance(reference := node.get("$ref"), str):
            return {name: self.of(value, (*at, name)) for name, value in node.items()}
        if self._has_own and reference.startswith("#/$defs/"):
            return dict(node)
        return node | {"$ref": f"#/$defs/{self._gathered(reference, at)}"}

    def _gathered(self, reference: str, at: Path) -> str:
        if reference in self._names:
            return self._names[reference]
        if len(self._names) >= DEFINITIONS_MAX:
            raise self._document.error(f"has more than {DEFINITIONS_MAX} references", *at)
        name = self._names[reference] = _free_name(reference, self.definitions)
        self.definitions[name] = {}  # taken, before what it refers to asks for names
        self.definitions[name] = self.of(*_target(self._document, reference, at))
        return name


def _target(document: Document, reference: str, path: Path) -> tuple[Any, Path]:
    if not reference.startswith("#/"):
        raise document.error(f"{reference} is not in this document; only references that begin with #/ are", *path)
    node: Any = document.data
    steps: list[str | int] = []
    for raw in reference[2:].split("/"):
        step = raw.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and step in node:
            node = node[step]
            steps.append(step)
        elif isinstance(node, list) and step.isdigit() and int(step) < len(node):
            node = node[int(step)]
            steps.append(int(step))
        else:
            raise document.error(f"{reference} is not in this document", *path)
    return node, tuple(steps)


def _free_name(reference: str, taken: Mapping[str, Any]) -> str:
    stem = name = reference.rsplit("/", 1)[-1].replace("~1", "-").replace("~0", "-")
    number = 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    return name
