"""Embeds a JSON Schema in a larger document, where its references start at the root of that document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jsonschema_rs
import orjson

_DOCUMENT_KEYWORDS = frozenset(
    {"$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$vocabulary"}
)
_NAMES_BELOW = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)
"""Keywords whose members have names that the schema's author chooses."""
_DATA_BELOW = frozenset({"const", "enum", "default", "examples"})
"""Keywords whose values are data, not schemas."""


_OPENAPI_KEYWORDS = frozenset({"discriminator", "xml", "externalDocs", "example"})


def rebase(schema: Mapping[str, Any], base: str) -> dict[str, Any] | None:
    """Return a schema with its references rebased to a JSON Pointer such as ``#/components/schemas/a``.

    Return None if it cannot be embedded: it has an identifier, refers to something outside, or is only a reference or
    the name of a registry subject.
    """
    if "$ref" in schema or set(schema) == {"subject"}:
        return None
    try:
        embedded: dict[str, Any] = _rebase(schema, schema, base)
    except _CannotRebase:
        return None
    return embedded


def needs_draft_7(schema: Any) -> bool:
    """Return whether a schema without ``$schema`` uses a keyword that JSON Schema 2020-12 removed."""
    return isinstance(schema, Mapping) and "$schema" not in schema and any(map(_uses_removed_keyword, _schemas(schema)))


def is_asyncapi_schema(schema: Mapping[str, Any]) -> bool:
    """Return whether a schema is valid in AsyncAPI's schema language, which is slightly narrower than draft 7."""
    return (
        "schemaFormat" not in schema
        and not needs_draft_7(schema)
        and _draft_7().is_valid(schema)
        and all(map(_is_narrow, _schemas(schema)))
    )


def is_openapi_schema(schema: Mapping[str, Any]) -> bool:
    """Return whether a schema is valid in OpenAPI 3.1's dialect: 2020-12 with a few keywords added."""
    return _draft_2020_12().is_valid(schema) and not any(_OPENAPI_KEYWORDS & set(each) for each in _schemas(schema))


class _CannotRebase(Exception):
    """The schema is a document with its own identity."""


def _rebase(node: Any, schema: Mapping[str, Any], base: str) -> Any:
    if isinstance(node, list):
        return [_rebase(value, schema, base) for value in node]
    if not isinstance(node, Mapping):
        return node
    members = {}
    for name, value in node.items():
        if name in _DOCUMENT_KEYWORDS and not isinstance(value, Mapping):
            raise _CannotRebase
        if name == "$ref":
            # Most readers treat even a property of this name as a reference.
            if not isinstance(value, str) or not _leads_inside(schema, value):
                raise _CannotRebase
            members[name] = base + value[1:]
        else:
            members[name] = _rebase(value, schema, base)
    return members


def _leads_inside(schema: Mapping[str, Any], reference: str) -> bool:
    if "%" in reference:
        return False
    if reference == "#":
        return True
    if not reference.startswith("#/"):
        return False
    node: Any = schema
    for raw in reference[2:].split("/"):
        step = raw.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping) and step in node:
            node = node[step]
        elif isinstance(node, list) and step.isdigit() and int(step) < len(node):
            node = node[int(step)]
        else:
            return False
    return isinstance(node, Mapping)


def _uses_removed_keyword(schema: Mapping[str, Any]) -> bool:
    return isinstance(schema.get("items"), list) or "additionalItems" in schema or "dependencies" in schema


def _is_narrow(schema: Mapping[str, Any]) -> bool:
    values = schema.get("enum", [None])
    return (
        isinstance(schema.get("discriminator", ""), str)
        and isinstance(schema.get("deprecated", False), bool)
        and "externalDocs" not in schema
        and schema.get("items") != []
        and isinstance(values, list)
        and 0 < len(values) == len(set(map(_as_value, values)))
    )


def _as_value(value: Any) -> Any:
    """Return a hashable that is equal for values that are equal in JSON: 1 equals 1.0, but not true."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


@cache
def _draft_7() -> jsonschema_rs.Validator:
    return jsonschema_rs.Draft7Validator({"$ref": "http://json-schema.org/draft-07/schema#"})


@cache
def _draft_2020_12() -> jsonschema_rs.Validator:
    return jsonschema_rs.Draft202012Validator({"$ref": "https://json-schema.org/draft/2020-12/schema"})


def _schemas(node: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every subschema of a schema, itself first."""
    if isinstance(node, list):
        for value in node:
            yield from _schemas(value)
    if not isinstance(node, Mapping):
        return
    yield node
    for name, value in node.items():
        if name in _NAMES_BELOW and isinstance(value, Mapping):
            yield from _schemas(list(value.values()))
        elif name not in _DATA_BELOW:
            yield from _schemas(value)
