"""Resolve references in a document and to files beside it, and make schemas independent of both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from configuration.importers.beside import beside
from configuration.yaml_documents import Document, pointer

Path = tuple[str | int, ...]
HOPS_MAX = 20
DEFINITIONS_MAX = 500
_OWN_DEFINITIONS = re.compile(r"#/(\$defs|definitions)/")


def follow(document: Document, node: Any, path: Path) -> tuple[Any, Path]:
    """Return the node that a node refers to through every ``$ref``, and its path. Raises DocumentError."""
    for _ in range(HOPS_MAX):
        if not isinstance(node, Mapping) or not isinstance(node.get("$ref"), str):
            return node, path
        node, path = _target(document, node["$ref"], path)
    raise document.error(f"its references are circular, or more than {HOPS_MAX} in a row", *path)


def mapping(document: Document, node: Any, path: Path) -> tuple[dict[str, Any], Path]:
    """Return a mapping as :func:`follow` does. Raises DocumentError for any other node."""
    target, where = follow(document, node, path)
    if not isinstance(target, dict):
        raise document.error("must be a mapping", *where)
    return target, where


def with_traits(document: Document, node: dict[str, Any], path: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """Yield a node of AsyncAPI and its traits, each with its path. Raises DocumentError."""
    yield node, path
    traits, where = follow(document, node.get("traits", []), (*path, "traits"))
    if not isinstance(traits, list):
        raise document.error("traits must be a list", *where)
    for number, trait in enumerate(traits):
        yield mapping(document, trait, (*where, number))


def self_contained(document: Document, schema: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a copy of a schema that contains what it refers to, in itself or in its ``$defs``."""
    defs = schema.get("$defs")
    definitions = _Definitions(document, root=path, taken=defs if isinstance(defs, dict) else {})
    contained: dict[str, Any] = definitions.copy(schema, path, path)
    if definitions.schemas:
        contained["$defs"] = {**contained.get("$defs", {}), **definitions.schemas}
    return contained


def any_of(document: Document, schemas: list[tuple[dict[str, Any], Path]]) -> dict[str, Any]:
    """Return one schema that accepts what any of several accepts, with one ``$defs`` for all that they refer to."""
    definitions = _Definitions(document, root=None, taken={})
    choices: list[Any] = []
    for schema, path in schemas:
        choice = definitions.copy(schema, path, path)
        if choice not in choices:
            choices.append(choice)
    return {"anyOf": choices} | ({"$defs": definitions.schemas} if definitions.schemas else {})


class _Definitions:
    """Collects the definitions that schemas refer to, also recursively.

    ``root`` is the path of the schema that becomes the root of the result; references into it stay references to it.
    """

    def __init__(self, document: Document, *, root: Path | None, taken: Mapping[str, Any]) -> None:
        self.schemas: dict[str, Any] = {}
        self._document = document
        self._root = root
        self._taken = taken
        self._names: dict[Path, str] = {}

    def copy(self, node: Any, at: Path, schema: Path) -> Any:
        """Return a copy of a part of a schema with its references replaced. Raises DocumentError."""
        if isinstance(node, list):
            return [self.copy(value, (*at, number), schema) for number, value in enumerate(node)]
        if not isinstance(node, dict):
            return node
        copied = {name: self.copy(value, (*at, name), schema) for name, value in node.items()}
        if isinstance(reference := node.get("$ref"), str):
            copied["$ref"] = self._new_reference(reference, at, schema)
        return copied

    def _new_reference(self, reference: str, at: Path, schema: Path) -> str:
        target, where = self._target(reference, at, schema)
        if self._root is not None and where[: len(self._root)] == self._root:
            return "#" + pointer(where[len(self._root) :])
        if where not in self._names:
            if len(self._names) >= DEFINITIONS_MAX:
                raise self._document.error(f"has more than {DEFINITIONS_MAX} references", *at)
            name = self._names[where] = _free_name(where, {**self._taken, **self.schemas})
            self.schemas[name] = {}  # reserves the name before the definition is copied
            self.schemas[name] = self.copy(target, where, schema)
        return f"#/$defs/{pointer([self._names[where]])[1:]}"

    def _target(self, reference: str, at: Path, schema: Path) -> tuple[Any, Path]:
        """Resolve a reference in the document, or ``#/$defs/…`` in the schema if the document has no ``$defs``.

        The same holds for ``definitions``, the name in drafts before 2019-09.
        """
        if reference == "#":
            return _node_at(self._document, schema), schema
        root, _ = self._document.root_of(at)
        if (section := _OWN_DEFINITIONS.match(reference)) and section[1] not in root:
            return _target(self._document, f"#{pointer(schema)}{reference[1:]}", at, written=reference)
        return _target(self._document, reference, at)


def _target(document: Document, reference: str, path: Path, *, written: str = "") -> tuple[Any, Path]:
    written = written or reference
    file, _, fragment = reference.partition("#")
    if file:
        root, first = beside(document, file, path)
    else:
        root, first = document.root_of(path)
    if fragment and not fragment.startswith("/"):
        raise document.error(f"{written} names an anchor; only JSON Pointers are followed", *path)
    node: Any = root
    steps: list[str | int] = [*first]
    for raw in unquote(fragment).split("/")[1:]:
        step = raw.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and step in node:
            node = node[step]
            steps.append(step)
        elif isinstance(node, list) and step.isdigit() and int(step) < len(node):
            node = node[int(step)]
            steps.append(int(step))
        else:
            raise document.error(f"{written} is not in {'that file' if file else 'this document'}", *path)
    return node, tuple(steps)


def _node_at(document: Document, path: Path) -> Any:
    node, first = document.root_of(path)
    for step in path[len(first) :]:
        node = node[step]
    return node


def _free_name(path: Path, taken: Mapping[str, Any]) -> str:
    stem = name = str(path[-1]).replace("/", "-") if path else "document"
    number = 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    return name
