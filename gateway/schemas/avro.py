"""Avro schemas (specification 1.12, "Schema Declaration") as a graph of nodes. Pure: no I/O, no clock."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.schemas.errors import InvalidSchema

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
NAMED = ("record", "enum", "fixed")
INT_MIN, INT_MAX = -(2**31), 2**31 - 1
LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1
FIXED_MAX = 2**31 - 1
MISSING: Final = object()
_HOLDERS = ("record", "array", "map", "union")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FULL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(slots=True, eq=False)
class Field:
    """A field of a record."""

    name: str
    node: Node
    default: Any = MISSING
    aliases: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Node:
    """One type. Records may contain themselves, so nodes are compared by identity."""

    kind: str
    name: str = ""
    """The full name of a record, enum or fixed."""
    aliases: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    symbols: Mapping[str, None] = field(default_factory=dict)
    """Symbols of an enum, in order; a dict because there may be thousands and every value is looked up."""
    default: Any = MISSING
    """An enum's default symbol."""
    items: Node | None = None
    """Type of the items of an array or of the values of a map."""
    branches: tuple[Node, ...] = ()
    size: int = 0

    @property
    def label(self) -> str:
        """Its key in the JSON encoding of a union: the full name, or the kind."""
        return self.name or self.kind

    @property
    def unqualified(self) -> str:
        """The name without the namespace."""
        return self.name.rpartition(".")[2]


def parse(schema: Any, names: dict[str, Node] | None = None) -> Node:
    """Parse a schema given as a JSON value. Raises InvalidSchema.

    ``names`` contains the named types of referenced schemas; those of this one are added.
    """
    return _Parser({} if names is None else names).node(schema, "", "")


class _Parser:
    """Parses one schema with references to named types."""

    def __init__(self, names: dict[str, Node]) -> None:
        self._names = names

    def node(self, schema: Any, namespace: str, at: str) -> Node:
        """Parse a schema of any kind."""
        if isinstance(schema, str):
            return self._by_name(schema, namespace, at)
        if isinstance(schema, list):
            return self._union(schema, namespace, at)
        if not isinstance(schema, dict) or "type" not in schema:
            raise InvalidSchema("A schema must be a name, a list of types (a union), or an object with `type`.", at)
        kind = schema["type"]
        if not isinstance(kind, str):
            return self.node(kind, namespace, f"{at}/type")
        if kind in NAMED:
            return self._named(kind, schema, namespace, at)
        if kind in ("array", "map"):
            member = "items" if kind == "array" else "values"
            if member not in schema:
                raise InvalidSchema(f"An Avro {kind} must have `{member}`.", at)
            return Node(kind, items=self.node(schema[member], namespace, f"{at}/{member}"))
        return self._by_name(kind, namespace, f"{at}/type")

    def _by_name(self, name: str, namespace: str, at: str) -> Node:
        if name in PRIMITIVES:
            return Node(name)
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        node = self._names.get(full) or self._names.get(name)
        if node is None:
            raise InvalidSchema(f"The type {name[:100]!r} is not defined.", at)
        return node

    def _union(self, schemas: list[Any], namespace: str, at: str) -> Node:
        if not schemas:
            raise InvalidSchema("A union must have at least one branch.", at)
        branches = tuple(self.node(schema, namespace, f"{at}/{number}") for number, schema in enumerate(schemas))
        seen: set[str] = set()
        for branch in branches:
            if branch.kind == "union":
                raise InvalidSchema("A union must not contain a union.", at)
            if branch.label in seen:
                raise InvalidSchema(f"A union must not contain {branch.label} twice.", at)
            seen.add(branch.label)
        return Node("union", branches=branches)

    def _named(self, kind: str, schema: Mapping[str, Any], namespace: str, at: str) -> Node:
        name, inner = _full_name(schema, namespace, at)
        if name in self._names or name in PRIMITIVES:
            raise InvalidSchema(f"{name} is defined twice.", f"{at}/name")
        node = Node(kind, name=name, aliases=_aliases(schema, inner, at))
        self._names[name] = node
        if kind == "record":
            node.fields = self._fields(schema, inner, at)
        elif kind == "enum":
            _read_enum(node, schema, at)
        else:
            node.size = _size(schema, at)
        return node

    def _fields(self, schema: Mapping[str, Any], namespace: str, at: str) -> tuple[Field, ...]:
        members = schema.get("fields")
        if not isinstance(members, list):
            raise InvalidSchema("A record must have a list `fields`.", at)
        fields = [self._field(value, namespace, f"{at}/fields/{number}") for number, value in enumerate(members)]
        if len({field.name for field in fields}) != len(fields):
            raise InvalidSchema("The names of the fields of a record must be unique.", f"{at}/fields")
        return tuple(fields)

    def _field(self, value: Any, namespace: str, at: str) -> Field:
        if not isinstance(value, dict) or not _is_name(value.get("name")) or "type" not in value:
            raise InvalidSchema("A field must be an object with a `name` and a `type`.", at)
        aliases = value.get("aliases", [])
        if not isinstance(aliases, list) or not all(map(_is_name, aliases)):
            raise InvalidSchema("`aliases` must be a list of names.", f"{at}/aliases")
        node = self.node(value["type"], namespace, f"{at}/type")
        field = Field(value["name"], node, value.get("default", MISSING), tuple(aliases))
        if field.default is not MISSING and not is_default(node, field.default):
            raise InvalidSchema(f"The default of {field.name} does not match its type.", f"{at}/default")
        return field


def is_default(node: Node, value: Any) -> bool:
    """Return whether a JSON value is a valid default of this type; for a union, of any of its branches."""
    return _is_default(node, value, {})


def _is_default(node: Node, value: Any, results: dict[tuple[int, int], bool]) -> bool:
    """``results`` memoizes: otherwise a value is checked once for each path through the unions above it."""
    if not isinstance(value, list | dict):
        return any(each.kind not in _HOLDERS and is_scalar(each, value) for each in node.branches or (node,))
    pair = (id(node), id(value))
    if pair not in results:
        results[pair] = _is_default_of(node, value, results)
    return results[pair]


def _is_default_of(node: Node, value: list[Any] | dict[str, Any], results: dict[tuple[int, int], bool]) -> bool:
    if node.kind == "union":
        return any(_is_default(branch, value, results) for branch in node.branches)
    if node.kind == "array":
        return isinstance(value, list) and all(_is_default(_items_of(node), item, results) for item in value)
    if not isinstance(value, dict):
        return False
    if node.kind == "map":
        return all(_is_default(_items_of(node), item, results) for item in value.values())
    return node.kind == "record" and all(
        _is_default(field.node, value[field.name], results) if field.name in value else field.default is not MISSING
        for field in node.fields
    )


def is_scalar(node: Node, value: Any) -> bool:
    """Return whether a JSON value is of a type without inner types (specification, "JSON Encoding")."""
    kind = node.kind
    if kind == "null":
        return value is None
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "string":
        return isinstance(value, str)
    if kind == "enum":
        return isinstance(value, str) and value in node.symbols
    if kind in ("bytes", "fixed"):
        # One character for each byte: ISO 8859-1.
        is_bytes = isinstance(value, str) and (not value or max(value) <= "\xff")
        return is_bytes and (kind == "bytes" or len(value) == node.size)
    return _is_number(kind, value)


def _is_number(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if kind in ("float", "double"):
        return isinstance(value, int | float)
    lowest, highest = (INT_MIN, INT_MAX) if kind == "int" else (LONG_MIN, LONG_MAX)
    return isinstance(value, int) and lowest <= value <= highest


def normalize(schema: Any, namespace: str = "") -> Any:
    """Return the normal form of a schema: full names, shortest types, everything else unchanged."""
    if isinstance(schema, list):
        return [normalize(branch, namespace) for branch in schema]
    if isinstance(schema, str):
        return schema if schema in PRIMITIVES or "." in schema or not namespace else f"{namespace}.{schema}"
    kind = schema["type"]
    if not isinstance(kind, str) or (kind not in NAMED and kind not in ("array", "map")):
        inner = normalize(kind, namespace)
        rest = {name: value for name, value in schema.items() if name != "type"}
        return {**rest, "type": inner} if rest else inner
    result = dict(schema)
    if kind in NAMED:
        result["name"], namespace = _full_name(schema, namespace, "")
        result.pop("namespace", None)
    for member in ("items", "values"):
        if member in result and kind in ("array", "map"):
            result[member] = normalize(result[member], namespace)
    if kind == "record":
        result["fields"] = [{**field, "type": normalize(field["type"], namespace)} for field in result["fields"]]
    return result


def _items_of(node: Node) -> Node:
    assert node.items is not None, "an array or a map"
    return node.items


def _full_name(schema: Mapping[str, Any], namespace: str, at: str) -> tuple[str, str]:
    """Return the full name of a named type and the namespace of the types in it."""
    name, own = schema.get("name"), schema.get("namespace", namespace)
    if not isinstance(name, str) or not _FULL_NAME.fullmatch(name):
        raise InvalidSchema("A name must consist of letters, digits and underscores, separated by dots.", f"{at}/name")
    if not isinstance(own, str) or (own and not _FULL_NAME.fullmatch(own)):
        raise InvalidSchema("A namespace must consist of names separated by dots.", f"{at}/namespace")
    if "." in name:
        return name, name.rpartition(".")[0]
    return (f"{own}.{name}" if own else name), own


def _aliases(schema: Mapping[str, Any], namespace: str, at: str) -> tuple[str, ...]:
    aliases = schema.get("aliases", [])
    if not isinstance(aliases, list) or not all(
        isinstance(alias, str) and _FULL_NAME.fullmatch(alias) for alias in aliases
    ):
        raise InvalidSchema("`aliases` must be a list of names.", f"{at}/aliases")
    return tuple(alias if "." in alias or not namespace else f"{namespace}.{alias}" for alias in aliases)


def _read_enum(node: Node, schema: Mapping[str, Any], at: str) -> None:
    symbols = schema.get("symbols")
    if not isinstance(symbols, list) or not all(map(_is_name, symbols)) or len(set(symbols)) != len(symbols):
        raise InvalidSchema("An enum must have a list `symbols` of unique names.", f"{at}/symbols")
    node.symbols = dict.fromkeys(symbols)
    node.default = schema.get("default", MISSING)
    if node.default is not MISSING and node.default not in symbols:
        raise InvalidSchema("The default of an enum must be one of its symbols.", f"{at}/default")


def _size(schema: Mapping[str, Any], at: str) -> int:
    size = schema.get("size")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= FIXED_MAX:
        raise InvalidSchema(f"A fixed must have a `size` from 0 to {FIXED_MAX}.", f"{at}/size")
    return size


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None
