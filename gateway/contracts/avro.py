"""Converts Avro schemas to the subset that AsyncAPI's definition of Avro accepts."""

from __future__ import annotations

import re
from typing import Any

from gateway.schemas.avro import NAMED, PRIMITIVES

FORMAT = "application/vnd.apache.avro+json;version=1.9.0"
"""The only version that AsyncAPI's tools accept."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ORDERS = (None, "ascending", "descending", "ignore")


class _NotExpressible(ValueError):
    """AsyncAPI's definition of Avro does not allow the schema."""


def to_asyncapi(schema: Any) -> Any | None:
    """Return a valid schema with names and namespaces separated, or None if AsyncAPI cannot express it."""
    try:
        return _type(schema)
    except _NotExpressible:
        return None


def _type(schema: Any) -> Any:
    if isinstance(schema, str):
        return schema
    if isinstance(schema, list):
        return [_type(branch) for branch in schema]
    kind = schema["type"]
    if kind in NAMED:
        return _named(schema)
    if kind in ("array", "map"):
        member = "items" if kind == "array" else "values"
        return _checked({**schema, member: _type(schema[member])})
    if isinstance(kind, str) and kind in PRIMITIVES:
        return schema
    if len(schema) > 1:
        raise _NotExpressible
    return _type(kind)


def _named(schema: dict[str, Any]) -> dict[str, Any]:
    converted = dict(schema)
    namespace, dot, name = converted["name"].rpartition(".")
    if dot:
        converted |= {"name": name, "namespace": namespace}
    if converted["type"] == "record":
        converted["fields"] = [_checked({**field, "type": _type(field["type"])}) for field in converted["fields"]]
    return _checked(converted)


def _checked(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema if AsyncAPI allows its names and documentation. Raises _NotExpressible."""
    names = [schema.get("name", "x"), *schema.get("aliases", ())]
    is_expressible = (
        all(isinstance(name, str) and _NAME.fullmatch(name) for name in names)
        and isinstance(schema.get("namespace", ""), str)
        and isinstance(schema.get("doc", ""), str)
        and schema.get("order") in _ORDERS
    )
    if not is_expressible:
        raise _NotExpressible
    return schema
