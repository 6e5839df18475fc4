"""AsyncAPI 2.6 and 3.x: every channel that the document describes, with the schema of its messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from configuration.documents import Document
from configuration.importers.wanted import Path, Wanted, follow, mapping, self_contained

VERSIONS = ("2.", "3.")
TITLE_MAX_CHARS = 200
_JSON_SCHEMA_FORMATS = ("application/vnd.aai.asyncapi", "application/schema+json", "application/schema+yaml")


def is_asyncapi(data: Any) -> bool:
    """Say whether this is such a document."""
    return isinstance(data, dict) and "asyncapi" in data


def channels(document: Document) -> list[Wanted]:
    """Give the channels. Which doors they open is left to all: servers are named in the document, ours are here.

    Raises DocumentError.
    """
    version = str(document.data["asyncapi"])
    if not version.startswith(VERSIONS):
        raise document.error(f"AsyncAPI {version} is not read; 2.6 and 3.x are", "asyncapi")
    described, path = mapping(document, document.data.get("channels", {}), ("channels",))
    found = [_channel(document, name, node, (*path, name), version) for name, node in described.items()]
    if not found:
        raise document.error("describes no channels", "channels")
    return found


def _channel(document: Document, name: str, node: Any, path: Path, version: str) -> Wanted:
    channel, path = mapping(document, node, path)
    address: Any
    if version.startswith("2."):
        address, messages = name, list(_messages_2(document, channel, path))
    else:
        address, messages = channel.get("address"), list(_messages_3(document, channel, path))
    if not isinstance(address, str) or not address:
        raise document.error(f"channel {name} has no address that is known beforehand", *path)
    titles = [channel.get("title"), channel.get("summary"), channel.get("description")]
    title = next((text for text in titles if isinstance(text, str) and text), "")
    values = {
        "address": address,
        "schema": _schema(document, messages),
        "on_invalid": "dead-letter",
    }
    if title:
        values["title"] = " ".join(title.split())[:TITLE_MAX_CHARS]
    return Wanted("channels", values, path)


def _messages_3(document: Document, channel: dict[str, Any], path: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    messages, path = mapping(document, channel.get("messages", {}), (*path, "messages"))
    for name, node in messages.items():
        yield mapping(document, node, (*path, name))


def _messages_2(document: Document, channel: dict[str, Any], path: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    for action in ("publish", "subscribe"):
        if action not in channel:
            continue
        operation, where = mapping(document, channel[action], (*path, action))
        if "message" not in operation:
            continue
        message, where = mapping(document, operation["message"], (*where, "message"))
        if "oneOf" not in message:
            yield message, where
            continue
        choices, where = follow(document, message["oneOf"], (*where, "oneOf"))
        for number, node in enumerate(choices if isinstance(choices, list) else []):
            yield mapping(document, node, (*where, number))


def _schema(document: Document, messages: list[tuple[dict[str, Any], Path]]) -> dict[str, Any] | None:
    """Give one schema for all messages of a channel; none where a message may be anything."""
    schemas: list[Any] = []
    for message, path in messages:
        schema = _payload(document, message, path)
        if schema is None:
            return None
        if schema not in schemas:
            schemas.append(schema)
    if len(schemas) > 1:
        return _any_of(schemas)
    return schemas[0] if schemas else None


def _payload(document: Document, message: dict[str, Any], path: Path) -> dict[str, Any] | None:
    if "payload" not in message:
        return None
    payload, where = follow(document, message["payload"], (*path, "payload"))
    named = message.get("schemaFormat")
    if isinstance(payload, dict) and "schemaFormat" in payload:
        named = payload["schemaFormat"]
        payload, where = follow(document, payload.get("schema"), (*where, "schema"))
    if named is not None and not str(named).startswith(_JSON_SCHEMA_FORMATS):
        raise document.error(f"schemas in {named} are not read; JSON Schema is", *path)
    if payload is True:
        return None
    if not isinstance(payload, dict):
        raise document.error("a payload is described by a JSON Schema", *where)
    return self_contained(document, payload, where)


def _any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """Join schemas; definitions that they share are written once."""
    definitions: dict[str, Any] = {}
    choices = []
    for schema in schemas:
        definitions |= schema.get("$defs", {})
        choices.append({name: value for name, value in schema.items() if name != "$defs"})
    return {"anyOf": choices} | ({"$defs": definitions} if definitions else {})
