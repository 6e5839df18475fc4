"""Compiles JSON Schemas of the registry with the schemas that they refer to. Nothing is ever fetched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from gateway.schemas.errors import InvalidSchema

_DRAFTS = {
    "http://json-schema.org/draft-04/schema": 4,
    "http://json-schema.org/draft-06/schema": 6,
    "http://json-schema.org/draft-07/schema": 7,
    "https://json-schema.org/draft/2019-09/schema": 2019,
    "https://json-schema.org/draft/2020-12/schema": 2020,
}
DETAIL_MAX_CHARS = 300


def draft_of(schema: Any) -> int:
    """Return the draft of a schema: 4, 6, 7, 2019 or 2020, the default. Raises InvalidSchema for others."""
    uri = schema.get("$schema") if isinstance(schema, dict) else None
    if uri is None:
        return 2020
    draft = _DRAFTS.get(uri.rstrip("#")) if isinstance(uri, str) else None
    if draft is None:
        raise InvalidSchema(f"`$schema` is not a supported draft: {str(uri)[:100]}.", "/$schema")
    return draft


def compile_validator(schema: Any, others: Mapping[str, Any]) -> jsonschema_rs.Validator:
    """Compile a schema; ``others`` maps the names of its references to schemas. Raises InvalidSchema.

    Patterns run on a linear-time engine, so look-around is invalid.
    """
    if not isinstance(schema, dict | bool):
        raise InvalidSchema("A JSON Schema must be an object, true or false.")
    draft_of(schema)
    for other in others.values():
        draft_of(other)

    def retrieve(uri: str) -> Any:
        return _retrieve(uri, others)

    try:
        return jsonschema_rs.validator_for(
            schema,
            retriever=retrieve,
            pattern_options=jsonschema_rs.RegexOptions(),
            validate_formats=True,
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        message = str(getattr(error, "message", None) or error)
        raise InvalidSchema(message[:DETAIL_MAX_CHARS]) from None


def referenced(name: str, others: Mapping[str, Any]) -> Any | None:
    """Return the schema that a reference names, by its full name or by its last part, which is unique."""
    if name in others:
        return others[name]
    last = last_part(name)
    return next((other for other_name, other in others.items() if last_part(other_name) == last), None)


def last_part(name: str) -> str:
    """Return the last part of the name of a reference, which is unique in a schema."""
    return name.rpartition("/")[2]


def _retrieve(uri: str, others: Mapping[str, Any]) -> Any:
    schema = referenced(uri, others)
    if schema is None:
        raise ValueError(f"{uri[:200]} is not among the schema's `references`, and references are not fetched")
    return schema
