"""Putting a JSON Schema into a larger document, where its references must be told from the document's root."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jsonschema_rs
import orjson

_OF_A_DOCUMENT_OF_ITS_OWN = frozenset(
    {"$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$vocabulary"}
)
_NAMES_BELOW = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)
"""Keywords whose members are named by the schema's author."""
_DATA_BELOW = frozenset({"const", "enum", "default", "examples"})
"""Keywords whose values are data, not schemas."""


_OF_OPENAPI = frozenset({"discriminator", "xml", "externalDocs", "example"})


def moved(schema: Mapping[str, Any], base: str) -> dict[str, Any] | None:
    """Give a schema with its references turned to where it will lie, a JSON Pointer such as ``#/components/schemas/a``.

    None where it cannot be moved: it names itself, refers to what lies outside, or is nothing but a reference or the
    name of a subject in the registry.
    """
    if "$ref" in schema or set(schema) == {"subject"}:
        return None
    try:
        found: dict[str, Any] = _moved(schema, schema, base)
    except _CannotMove:
        return None
    return found


def needs_draft_7(schema: Any) -> bool:
    """Say whether a schema uses a keyword that JSON Schema 2020-12 has given up, and does not say its dialect."""
    return isinstance(schema, Mapping) and "$schema" not in schema and any(map(_is_given_up, _schemas(schema)))


def is_asyncapi_schema(schema: Mapping[str, Any]) -> bool:
    """Say whether a schema is one of AsyncAPI's schema language too: that of draft 7, and a little narrower."""
    return (
        "schemaFormat" not in schema
        and not needs_draft_7(schema)
        and _draft_7().is_valid(schema)
        and all(map(_is_narrow, _schemas(schema)))
    )


def is_openapi_schema(schema: Mapping[str, Any]) -> bool:
    """Say whether a schema is one of OpenAPI 3.1's dialect too: that of 2020-12, with a few words of its own."""
    return _draft_2020_12().is_valid(schema) and not any(_OF_OPENAPI & set(found) for found in _schemas(schema))


class _CannotMove(Exception):
    """The schema is a document of its own."""


def _moved(node: Any, schema: Mapping[str, Any], base: str) -> Any:
    if isinstance(node, list):
        return [_moved(value, schema, base) for value in node]
    if not isinstance(node, Mapping):
        return node
    found = {}
    for name, value in node.items():
        if name in _OF_A_DOCUMENT_OF_ITS_OWN and not isinstance(value, Mapping):
            raise _CannotMove
        if name == "$ref":
            # A property of that name is a reference to most readers.
            if not isinstance(value, str) or not _leads_inside(schema, value):
                raise _CannotMove
            found[name] = base + value[1:]
        else:
            found[name] = _moved(value, schema, base)
    return found


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


def _is_given_up(schema: Mapping[str, Any]) -> bool:
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
    """Give what is equal for values that are equal in JSON, where 1 is 1.0 and not true."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


@cache
def _draft_7() -> jsonschema_rs.Validator:
    return jsonschema_rs.Draft7Validator({"$ref": "http://json-schema.org/draft-07/schema#"})


@cache
def _draft_2020_12() -> jsonschema_rs.Validator:
    return jsonschema_rs.Draft202012Validator({"$ref": "https://json-schema.org/draft/2020-12/schema"})


def _schemas(node: Any) -> Iterator[Mapping[str, Any]]:
    """Give each schema within a schema, itself first."""
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
