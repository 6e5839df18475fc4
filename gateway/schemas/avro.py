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
    """One type. Records may hold themselves, so nodes are compared by identity."""

    kind: str
    name: str = ""
    """The full name of a record, enum or fixed."""
    aliases: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    symbols: Mapping[str, None] = field(default_factory=dict)
    """Of an enum, in their order; there may be thousands, of which one is looked for in each value."""
    default: Any = MISSING
    """An enum's default symbol."""
    items: Node | None = None
    """Of an array its items, of a map its values."""
    branches: tuple[Node, ...] = ()
    size: int = 0

    @property
    def label(self) -> str:
        """Say it as a union's JSON encoding does: the full name, or the kind."""
        return self.name or self.kind

    @property
    def unqualified(self) -> str:
        """Its name without the namespace."""
        return self.name.rpartition(".")[2]


def parse(schema: Any, names: dict[str, Node] | None = None) -> Node:
    """Read a schema given as JSON. Raises InvalidSchema.

    ``names`` holds the named types of referenced schemas, and those of this one afterwards.
    """
    return _Parser({} if names is None else names).node(schema, "", "")


class _Parser:
    """Reads one schema, and the schemas that it refers to by name."""

    def __init__(self, names: dict[str, Node]) -> None:
        self._names = names

    def node(self, schema: Any, namespace: str, at: str) -> Node:
        """Read any schema."""
        if isinstance(schema, str):
            return self._by_name(schema, namespace, at)
        if isinstance(schema, list):
            return self._union(schema, namespace, at)
        if not isinstance(schema, dict) or "type" not in schema:
            raise InvalidSchema("A schema is a name, a union in brackets, or an object with `type`.", at)
        kind = schema["type"]
        if not isinstance(kind, str):
            return self.node(kind, namespace, f"{at}/type")
        if kind in NAMED:
            return self._named(kind, schema, namespace, at)
        if kind in ("array", "map"):
            member = "items" if kind == "array" else "values"
            if member not in schema:
                raise InvalidSchema(f"An Avro {kind} has `{member}`.", at)
            return Node(kind, items=self.node(schema[member], namespace, f"{at}/{member}"))
        return self._by_name(kind, namespace, f"{at}/type")

    def _by_name(self, name: str, namespace: str, at: str) -> Node:
        if name in PRIMITIVES:
            return Node(name)
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        found = self._names.get(full) or self._names.get(name)
        if found is None:
            raise InvalidSchema(f"There is no type {name[:100]!r} here.", at)
        return found

    def _union(self, schemas: list[Any], namespace: str, at: str) -> Node:
        if not schemas:
            raise InvalidSchema("A union has branches.", at)
        branches = tuple(self.node(schema, namespace, f"{at}/{number}") for number, schema in enumerate(schemas))
        seen: set[str] = set()
        for branch in branches:
            if branch.kind == "union":
                raise InvalidSchema("A union holds no union.", at)
            if branch.label in seen:
                raise InvalidSchema(f"A union holds {branch.label} once.", at)
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
        given = schema.get("fields")
        if not isinstance(given, list):
            raise InvalidSchema("A record has a list of `fields`.", at)
        fields = [self._field(value, namespace, f"{at}/fields/{number}") for number, value in enumerate(given)]
        if len({field.name for field in fields}) != len(fields):
            raise InvalidSchema("A record names each field once.", f"{at}/fields")
        return tuple(fields)

    def _field(self, value: Any, namespace: str, at: str) -> Field:
        if not isinstance(value, dict) or not _is_name(value.get("name")) or "type" not in value:
            raise InvalidSchema("A field is an object with a `name` and a `type`.", at)
        aliases = value.get("aliases", [])
        if not isinstance(aliases, list) or not all(map(_is_name, aliases)):
            raise InvalidSchema("Aliases are a list of names.", f"{at}/aliases")
        node = self.node(value["type"], namespace, f"{at}/type")
        field = Field(value["name"], node, value.get("default", MISSING), tuple(aliases))
        if field.default is not MISSING and not is_default(node, field.default):
            raise InvalidSchema(f"The default of {field.name} is not of its type.", f"{at}/default")
        return field


def is_default(node: Node, value: Any) -> bool:
    """Say whether JSON may stand as the default of a field of this type: a union's as one of its branches."""
    return _is_default(node, value, {})


def _is_default(node: Node, value: Any, known: dict[tuple[int, int], bool]) -> bool:
    """``known`` keeps what was found: a value would be looked at once for each way through the unions above it."""
    if not isinstance(value, list | dict):
        return any(each.kind not in _HOLDERS and is_scalar(each, value) for each in node.branches or (node,))
    pair = (id(node), id(value))
    if pair not in known:
        known[pair] = _is_default_of(node, value, known)
    return known[pair]


def _is_default_of(node: Node, value: list[Any] | dict[str, Any], known: dict[tuple[int, int], bool]) -> bool:
    if node.kind == "union":
        return any(_is_default(branch, value, known) for branch in node.branches)
    if node.kind == "array":
        return isinstance(value, list) and all(_is_default(_of(node), item, known) for item in value)
    if not isinstance(value, dict):
        return False
    if node.kind == "map":
        return all(_is_default(_of(node), item, known) for item in value.values())
    return node.kind == "record" and all(
        _is_default(field.node, value[field.name], known) if field.name in value else field.default is not MISSING
        for field in node.fields
    )


def is_scalar(node: Node, value: Any) -> bool:
    """Say whether JSON is a value of a type that holds no other types (specification, "JSON Encoding")."""
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
        # One character a byte: ISO 8859-1.
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


def normal(schema: Any, namespace: str = "") -> Any:
    """Write a schema as its normal form: full names, types as short as they can be; what else it says stays."""
    if isinstance(schema, list):
        return [normal(branch, namespace) for branch in schema]
    if isinstance(schema, str):
        return schema if schema in PRIMITIVES or "." in schema or not namespace else f"{namespace}.{schema}"
    kind = schema["type"]
    if not isinstance(kind, str) or (kind not in NAMED and kind not in ("array", "map")):
        inner = normal(kind, namespace)
        rest = {name: value for name, value in schema.items() if name != "type"}
        return {**rest, "type": inner} if rest else inner
    said = dict(schema)
    if kind in NAMED:
        said["name"], namespace = _full_name(schema, namespace, "")
        said.pop("namespace", None)
    for member in ("items", "values"):
        if member in said and kind in ("array", "map"):
            said[member] = normal(said[member], namespace)
    if kind == "record":
        said["fields"] = [{**field, "type": normal(field["type"], namespace)} for field in said["fields"]]
    return said


def _of(node: Node) -> Node:
    assert node.items is not None, "an array or a map"
    return node.items


def _full_name(schema: Mapping[str, Any], namespace: str, at: str) -> tuple[str, str]:
    """Give the full name of a named type, and the namespace of what stands in it."""
    name, own = schema.get("name"), schema.get("namespace", namespace)
    if not isinstance(name, str) or not _FULL_NAME.fullmatch(name):
        raise InvalidSchema("A name is of letters, digits and underscores, and of dots between.", f"{at}/name")
    if not isinstance(own, str) or (own and not _FULL_NAME.fullmatch(own)):
        raise InvalidSchema("A namespace is of names with dots between.", f"{at}/namespace")
    if "." in name:
        return name, name.rpartition(".")[0]
    return (f"{own}.{name}" if own else name), own


def _aliases(schema: Mapping[str, Any], namespace: str, at: str) -> tuple[str, ...]:
    aliases = schema.get("aliases", [])
    if not isinstance(aliases, list) or not all(
        isinstance(alias, str) and _FULL_NAME.fullmatch(alias) for alias in aliases
    ):
        raise InvalidSchema("Aliases are a list of names.", f"{at}/aliases")
    return tuple(alias if "." in alias or not namespace else f"{namespace}.{alias}" for alias in aliases)


def _read_enum(node: Node, schema: Mapping[str, Any], at: str) -> None:
    symbols = schema.get("symbols")
    if not isinstance(symbols, list) or not all(map(_is_name, symbols)) or len(set(symbols)) != len(symbols):
        raise InvalidSchema("An enum has a list of `symbols`, each a name and once.", f"{at}/symbols")
    node.symbols = dict.fromkeys(symbols)
    node.default = schema.get("default", MISSING)
    if node.default is not MISSING and node.default not in symbols:
        raise InvalidSchema("An enum's default is one of its symbols.", f"{at}/default")


def _size(schema: Mapping[str, Any], at: str) -> int:
    size = schema.get("size")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= FIXED_MAX:
        raise InvalidSchema(f"A fixed has a `size` from 0 to {FIXED_MAX}.", f"{at}/size")
    return size


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None
