"""Checks JSON values by an Avro schema, in Avro's JSON encoding (specification 1.12, "JSON Encoding")."""

from __future__ import annotations

from typing import Any, NoReturn

from gateway.schemas.avro import MISSING, Node, is_scalar
from gateway.wire.strict_json import fail, pointer

Path = tuple["Path", str | int] | None


def check(node: Node, value: Any) -> None:
    """Raise Refused ``invalid-payload`` with the JSON Pointer of the violation if the value is not of the type.

    A field with a default may be missing; a field that the record does not define is a violation.
    """
    _check(node, value, None)


def _check(node: Node, value: Any, path: Path) -> None:
    check_kind = _OF_KIND.get(node.kind)
    if check_kind is not None:
        check_kind(node, value, path)
    elif not is_scalar(node, value):
        _wrong(node, path)


def _check_record(node: Node, value: Any, path: Path) -> None:
    if not isinstance(value, dict):
        _wrong(node, path)
    defined = 0
    for field in node.fields:
        if field.name in value:
            defined += 1
            _check(field.node, value[field.name], (path, field.name))
        elif field.default is MISSING:
            fail(f"The field {field.name!r} is missing.", _pointer(path))
    if defined != len(value):
        names = {field.name for field in node.fields}
        extra = next(name for name in value if name not in names)
        fail(f"{node.name} does not define the field {extra[:100]!r}.", _pointer((path, extra)))


def _check_array(node: Node, value: Any, path: Path) -> None:
    if not isinstance(value, list) or node.items is None:
        _wrong(node, path)
    for number, item in enumerate(value):
        _check(node.items, item, (path, number))


def _check_map(node: Node, value: Any, path: Path) -> None:
    if not isinstance(value, dict) or node.items is None:
        _wrong(node, path)
    for name, item in value.items():
        _check(node.items, item, (path, name))


def _check_union(node: Node, value: Any, path: Path) -> None:
    """``null`` is encoded as itself, a value of another branch as ``{"branch": value}``."""
    label = "null" if value is None else next(iter(value)) if isinstance(value, dict) and len(value) == 1 else None
    for branch in node.branches:
        if branch.label == label:
            if value is not None:
                _check(branch, value[label], (path, label))
            return
    _wrong(node, path)


_OF_KIND = {"record": _check_record, "array": _check_array, "map": _check_map, "union": _check_union}


def _wrong(node: Node, path: Path) -> NoReturn:
    if node.kind == "union":
        labels = ", ".join("null" if branch.kind == "null" else f'{{"{branch.label}": …}}' for branch in node.branches)
        fail(f"The value matches no branch of the union. Send one of {labels[:200]}.", _pointer(path))
    named = f" {node.name}" if node.name else ""
    fail(f"The value is not of the Avro type {node.kind}{named}.", _pointer(path))


def _pointer(path: Path) -> str:
    steps: list[str | int] = []
    while path is not None:
        path, step = path
        steps.append(step)
    return pointer(steps[::-1])
