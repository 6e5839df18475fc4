"""Convert the messages of an AsyncAPI channel to one content type and one schema."""

from __future__ import annotations

import json
from typing import Any

from configuration.importers.imported import RegisteredSchema
from configuration.importers.references import Path, any_of, follow, self_contained, with_traits
from configuration.importers.report import Report
from configuration.registry_faults import SETTINGS
from configuration.yaml_documents import Document, DocumentError, nodes_of, parse
from configuration.yaml_reader import NODES_MAX
from gateway.contracts.schemas import needs_draft_7
from gateway.wire.content_types import (
    BYTES,
    JSON,
    JSON_TYPE,
    TEXT,
    ContentTypeError,
    from_media_type,
    is_json,
    is_text,
    media_type_of,
)

_JSON_SCHEMA_FORMATS = ("application/vnd.aai.asyncapi", "application/schema+json", "application/schema+yaml")
_AVRO_FORMAT = "application/vnd.apache.avro"
NUMBER_MAX = 2**31
DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def content_type_of(document: Document, messages: list[tuple[dict[str, Any], Path]], report: Report) -> str:
    """Return the content type of a channel with these messages: what takes all of them.

    Messages with a schema in Avro are published in JSON, as the registry encodes them. A text that names no media type
    is reported.
    """
    types = dict.fromkeys(_content_type(document, *placed, report) for placed in messages)
    if len(types) <= 1:
        return next(iter(types), None) or _content_type(document, {}, (), report)
    media_types = [media_type_of(type_) for type_ in types]
    return JSON if all(map(is_json, media_types)) else TEXT if all(map(is_text, media_types)) else BYTES


def _media_type(document: Document, message: dict[str, Any], path: Path) -> Any:
    """Return the media type of a message, or of its last trait that has one; None if the document has a default."""
    own, *traits = [node for node, _ in with_traits(document, message, path)]
    return next((node["contentType"] for node in (own, *reversed(traits)) if "contentType" in node), None)


def has_schema(content_type: Any) -> bool:
    """Return whether events of a content type may have a schema."""
    return not isinstance(content_type, str) or is_json(media_type_of(content_type))


def _content_type(document: Document, message: dict[str, Any], path: Path, report: Report) -> str:
    if _avro(document, message, path) is not None:
        return JSON
    media_type = _media_type(document, message, path) or document.data.get("defaultContentType", JSON_TYPE)
    try:
        return from_media_type(str(media_type))
    except ContentTypeError:
        report.skip(document.error(f"{str(media_type)[:100]!r} is no media type; the channel takes bytes", *path))
        return BYTES  # which takes whatever the document means


def schema_of(document: Document, messages: list[tuple[dict[str, Any], Path]]) -> dict[str, Any] | None:
    """Return one schema for all messages of a channel, or None if a message may be anything. Raises DocumentError."""
    if len(messages) == 1 and isinstance(text := messages[0][0].get("x-schema"), str):
        return _from_text(document, text, (*messages[0][1], "x-schema"))
    payloads: dict[Path, dict[str, Any]] = {}
    for message, path in messages:
        payload = _payload(document, message, path)
        if payload is None:
            return None
        payloads[payload[1]] = payload[0]
    if not payloads:
        return None
    which = tuple(payloads)
    if which not in document.schemas:
        schema = _joined(document, payloads)
        # Schemas of AsyncAPI default to draft 7, those of a channel to 2020-12, which is mostly the same.
        schema = {"$schema": DRAFT_7, **schema} if needs_draft_7(schema) else schema
        document.schemas[which] = schema, nodes_of(schema)
    schema, nodes = document.schemas[which]
    document.schema_nodes += nodes
    if document.schema_nodes > NODES_MAX:
        raise document.error(
            f"the schemas of the channels have more than {NODES_MAX} values with all that they refer to; import a part "
            "of the document with --only",
            *messages[0][1],
        )
    return schema


def registered_schema(document: Document, messages: list[tuple[dict[str, Any], Path]]) -> RegisteredSchema | None:
    """Return the schema to register: Avro, or the payload of a message with ``x-schema``. Raises DocumentError."""
    is_named = len(messages) == 1 and "x-schema" in messages[0][0]
    avro = [_avro(document, message, path) for message, path in messages]
    if any(schema is not None for schema in avro):
        schemas = [schema for number, schema in enumerate(avro) if schema not in avro[:number]]
        if None in schemas:
            raise document.error("either all messages of a channel must be in Avro, or none", *messages[0][1])
        text = json.dumps(schemas[0] if len(schemas) == 1 else schemas)
        return _registration(messages[0][0], "AVRO", text) if is_named else RegisteredSchema("AVRO", text, is_named)
    if is_named and isinstance(written := messages[0][0].get("x-schema-text"), str):
        return _registration(messages[0][0], str(messages[0][0].get("x-schema-type", "JSON")), written)
    if is_named and "payload" in messages[0][0]:
        payload = _payload(document, *messages[0])
        if payload is not None:
            return _registration(messages[0][0], "JSON", json.dumps(self_contained(document, *payload)))
    return None


def _registration(message: dict[str, Any], type_: str, text: str) -> RegisteredSchema:
    """Return the schema of a message that names its subject, as the gateway that wrote the document has it."""
    settings = {name: message.get(f"x-schema-{name}") for name in SETTINGS}
    return RegisteredSchema(
        type_,
        text,
        is_named=True,
        version=_number(message.get("x-schema-version")) or 1,
        id=_number(message.get("x-schema-id")),
        settings={name: value for name, value in settings.items() if value in list(SETTINGS[name])},
    )


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < NUMBER_MAX else None


def _avro(document: Document, message: dict[str, Any], path: Path) -> Any:
    """Return the Avro schema of a message, or None if it has another kind of schema."""
    payload, where = follow(document, message.get("payload"), (*path, "payload"))
    schema_format = message.get("schemaFormat")
    if isinstance(payload, dict) and "schemaFormat" in payload:
        schema_format = payload["schemaFormat"]
        payload, _ = follow(document, payload.get("schema"), (*where, "schema"))
    return payload if str(schema_format).startswith(_AVRO_FORMAT) else None


def _joined(document: Document, payloads: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    alone = [self_contained(document, payload, path) for path, payload in payloads.items()]
    if all(schema == alone[0] for schema in alone):
        return alone[0]
    return any_of(document, [(payload, path) for path, payload in payloads.items()])


def _payload(document: Document, message: dict[str, Any], path: Path) -> tuple[dict[str, Any], Path] | None:
    """Return the schema of a message and its path, or None if it accepts anything."""
    if "payload" not in message:
        return None
    payload, where = follow(document, message["payload"], (*path, "payload"))
    schema_format = message.get("schemaFormat")
    if isinstance(payload, dict) and "schemaFormat" in payload:
        schema_format = payload["schemaFormat"]
        payload, where = follow(document, payload.get("schema"), (*where, "schema"))
    if schema_format is not None and not str(schema_format).startswith(_JSON_SCHEMA_FORMATS):
        raise document.error(f"schemas in {schema_format} are not supported; JSON Schema and Avro are", *path)
    if payload is True:
        return None
    if not isinstance(payload, dict):
        raise document.error("a payload must be a JSON Schema", *where)
    return payload, where


def _from_text(document: Document, text: str, path: Path) -> dict[str, Any]:
    try:
        schema = parse(text, "x-schema").data
    except DocumentError as error:
        raise document.error(f"is not JSON: {error}", *path) from None
    if not isinstance(schema, dict):
        raise document.error("a payload must be a JSON Schema", *path)
    return schema
