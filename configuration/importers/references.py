"""What an imported document asks for, and the way that its local references go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from configuration.yaml_documents import Document, pointer

Path = tuple[str | int, ...]
HOPS_MAX = 20
DEFINITIONS_MAX = 500


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
    """Give a schema that needs no other part of its document: what it refers to lies in itself or its ``$defs``."""
    own = schema.get("$defs")
    gathering = _Gathering(document, root=path, taken=own if isinstance(own, dict) else {})
    found: dict[str, Any] = gathering.of(schema, path, path)
    if gathering.definitions:
        found["$defs"] = {**found.get("$defs", {}), **gathering.definitions}
    return found


def any_of(document: Document, schemas: list[tuple[dict[str, Any], Path]]) -> dict[str, Any]:
    """Give one schema that takes what any of several takes; what they refer to is written once, in its ``$defs``."""
    gathering = _Gathering(document, root=None, taken={})
    choices: list[Any] = []
    for schema, path in schemas:
        choice = gathering.of(schema, path, path)
        if choice not in choices:
            choices.append(choice)
    return {"anyOf": choices} | ({"$defs": gathering.definitions} if gathering.definitions else {})


class _Gathering:
    """The definitions that schemas refer to, also through each other and in circles.

    ``root`` is where the schema lies that becomes the root of the result: its own parts are referred to where they are.
    """

    def __init__(self, document: Document, *, root: Path | None, taken: Mapping[str, Any]) -> None:
        self.definitions: dict[str, Any] = {}
        self._document = document
        self._root = root
        self._taken = taken
        self._names: dict[Path, str] = {}

    def of(self, node: Any, at: Path, schema: Path) -> Any:
        """Give a part of the schema at a path with its references turned. Raises DocumentError."""
        if isinstance(node, list):
            return [self.of(value, (*at, number), schema) for number, value in enumerate(node)]
        if not isinstance(node, dict):
            return node
        turned = {name: self.of(value, (*at, name), schema) for name, value in node.items()}
        if isinstance(reference := node.get("$ref"), str):
            turned["$ref"] = self._turned(reference, at, schema)
        return turned

    def _turned(self, reference: str, at: Path, schema: Path) -> str:
        target, where = self._target(reference, at, schema)
        if self._root is not None and where[: len(self._root)] == self._root:
            return "#" + pointer(where[len(self._root) :])
        if where not in self._names:
            if len(self._names) >= DEFINITIONS_MAX:
                raise self._document.error(f"has more than {DEFINITIONS_MAX} references", *at)
            name = self._names[where] = _free_name(where, {**self._taken, **self.definitions})
            self.definitions[name] = {}  # taken, before what it refers to asks for names
            self.definitions[name] = self.of(target, where, schema)
        return f"#/$defs/{pointer([self._names[where]])[1:]}"

    def _target(self, reference: str, at: Path, schema: Path) -> tuple[Any, Path]:
        """Find what a reference means: in the document, or for ``#/$defs/…`` in a schema that has such of its own."""
        if reference == "#":
            return _found(self._document, schema), schema
        if reference.startswith("#/$defs/") and "$defs" not in self._document.data:
            return _target(self._document, f"#{pointer(schema)}{reference[1:]}", at, said=reference)
        return _target(self._document, reference, at)


def _target(document: Document, reference: str, path: Path, *, said: str = "") -> tuple[Any, Path]:
    said = said or reference
    if not reference.startswith("#/"):
        raise document.error(
            f"{said} is not in this document; only references that begin with #/ are followed. "
            "Bundle the document into one file first",
            *path,
        )
    node: Any = document.data
    steps: list[str | int] = []
    for raw in unquote(reference[2:]).split("/"):
        step = raw.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and step in node:
            node = node[step]
            steps.append(step)
        elif isinstance(node, list) and step.isdigit() and int(step) < len(node):
            node = node[int(step)]
            steps.append(int(step))
        else:
            raise document.error(f"{said} is not in this document", *path)
    return node, tuple(steps)


def _found(document: Document, path: Path) -> Any:
    node = document.data
    for step in path:
        node = node[step]
    return node


def _free_name(path: Path, taken: Mapping[str, Any]) -> str:
    stem = name = str(path[-1]).replace("/", "-") if path else "document"
    number = 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    return name
