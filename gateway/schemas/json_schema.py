"""JSON Schemas of the registry: compiled with the schemas that they refer to, nothing ever fetched."""

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
    """Say by which draft a schema is read: 4, 6, 7, 2019 or 2020, the default. Raises InvalidSchema for another."""
    said = schema.get("$schema") if isinstance(schema, dict) else None
    if said is None:
        return 2020
    draft = _DRAFTS.get(said.rstrip("#")) if isinstance(said, str) else None
    if draft is None:
        raise InvalidSchema(f"`$schema` names no draft that is known here: {str(said)[:100]}.", "/$schema")
    return draft


def compiled(schema: Any, others: Mapping[str, Any]) -> jsonschema_rs.Validator:
    """Compile a schema; ``others`` holds what its references name. Raises InvalidSchema.

    Patterns run on a linear-time engine, so look-around is refused.
    """
    if not isinstance(schema, dict | bool):
        raise InvalidSchema("A JSON Schema is an object, or true or false.")
    draft_of(schema)
    for other in others.values():
        draft_of(other)

    def retrieve(uri: str) -> Any:
        return _retrieved(uri, others)

    try:
        return jsonschema_rs.validator_for(
            schema,
            retriever=retrieve,
            pattern_options=jsonschema_rs.RegexOptions(),
            validate_formats=True,
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        said = str(getattr(error, "message", None) or error)
        raise InvalidSchema(said[:DETAIL_MAX_CHARS]) from None


def referenced(name: str, others: Mapping[str, Any]) -> Any | None:
    """Find what a reference names: by all of its name, or by its last part, which no two of them share."""
    if name in others:
        return others[name]
    last = last_part(name)
    return next((other for known, other in others.items() if last_part(known) == last), None)


def last_part(name: str) -> str:
    """Give what a reference is told apart by."""
    return name.rpartition("/")[2]


def _retrieved(uri: str, others: Mapping[str, Any]) -> Any:
    found = referenced(uri, others)
    if found is None:
        raise ValueError(f"{uri[:200]} is none of the schema's `references`, and references are not fetched")
    return found
