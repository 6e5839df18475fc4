"""Avro schemas in the words that AsyncAPI's own definition of them has: a little narrower than Avro's."""

from __future__ import annotations

import re
from typing import Any

from gateway.schemas.avro import NAMED, PRIMITIVES

FORMAT = "application/vnd.apache.avro+json;version=1.9.0"
"""The one that AsyncAPI's tools know."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ORDERS = (None, "ascending", "descending", "ignore")


class _Unfit(ValueError):
    """AsyncAPI has no words for it."""


def fitting(schema: Any) -> Any | None:
    """Give a schema that was parsed, with names and namespaces apart; None where AsyncAPI cannot say it."""
    try:
        return _type(schema)
    except _Unfit:
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
        return _described({**schema, member: _type(schema[member])})
    if isinstance(kind, str) and kind in PRIMITIVES:
        return schema
    if len(schema) > 1:
        raise _Unfit
    return _type(kind)


def _named(schema: dict[str, Any]) -> dict[str, Any]:
    said = dict(schema)
    namespace, dot, name = said["name"].rpartition(".")
    if dot:
        said |= {"name": name, "namespace": namespace}
    if said["type"] == "record":
        said["fields"] = [_described({**field, "type": _type(field["type"])}) for field in said["fields"]]
    return _described(said)


def _described(schema: dict[str, Any]) -> dict[str, Any]:
    """Give it where what describes it is as AsyncAPI wants it. Raises _Unfit."""
    names = [schema.get("name", "x"), *schema.get("aliases", ())]
    is_fit = (
        all(isinstance(name, str) and _NAME.fullmatch(name) for name in names)
        and isinstance(schema.get("namespace", ""), str)
        and isinstance(schema.get("doc", ""), str)
        and schema.get("order") in _ORDERS
    )
    if not is_fit:
        raise _Unfit
    return schema
