"""AsyncAPI 3.0 of what one key may send and receive: generated from what is enforced."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from gateway.contracts import avro
from gateway.contracts.schemas import is_asyncapi_schema, moved
from gateway.contracts.view import Names, View, Where, limits
from gateway.protocol import Protocol
from gateway.schemas.errors import InvalidSchema
from gateway.schemas.registered import AVRO, Latest
from gateway.snapshot.documents import Channel
from gateway.snapshot.right import Verb
from gateway.wire.subjects import Template

VERSION = "3.0.0"
MESSAGE = "event"
_ACTIONS = ((Verb.PUBLISH, "send"), (Verb.SUBSCRIBE, "receive"))
_NOT_IN_AN_ADDRESS = frozenset("?#")
"""AsyncAPI allows neither in an address; ours may have them."""
_KEY = [{"$ref": "#/components/securitySchemes/bearer"}, {"$ref": "#/components/securitySchemes/key"}]
_SAID_OF_DOORS = {
    Protocol.HTTP: "POST and GET /v1/channels/{address}/events, slashes of the address as %2F: publish, and history.",
    Protocol.SSE: "GET /v1/events?channel={address}: each event's payload is the data, its position the id.",
    Protocol.WEBSOCKET: "One socket for many channels. A payload is the member `data` of the frames "
    '{"type": "publish", "channel", "data"} and {"type": "event", "channel", "id", "time", "data"}.',
    Protocol.MQTT: "MQTT 5.0 and 3.1.1: the address is the topic. User name `key`, password the key.",
}
_DESCRIPTION = (
    "What the application that holds this key may do: `send` is to publish, `receive` is to read. "
    "Payloads are described by JSON Schema 2020-12 where they do not say otherwise; "
    "a message whose schema cannot be carried here has it as text in `x-schema`. `x-limits` are the limits of the key."
)


def written(view: View) -> dict[str, Any]:
    """Give the document of the channels that the key may use."""
    doors = _doors(view.where)
    names = Names()
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for channel in sorted(view.channels, key=lambda channel: channel.address):
        actions = [action for verb, action in _ACTIONS if view.may(verb, channel.address)]
        if not actions:
            continue
        name = names.of(channel.address)
        channels[name] = _channel(channel, name, doors, schemas, view.subjects)
        for action in actions:
            operations[f"{action}-{name}"] = _operation(action, name)
    return {
        "asyncapi": VERSION,
        "info": {"title": "Channels", "version": "1", "description": _DESCRIPTION},
        "defaultContentType": "application/json",
        "servers": {door.value: server for door, server in doors.items()},
        "channels": channels,
        "operations": operations,
        "components": {"schemas": schemas, "securitySchemes": _SECURITY},
        "x-limits": limits(view.caller.limits),
    }


def _doors(where: Where) -> dict[Protocol, dict[str, Any]]:
    web = urlsplit(where.public_url)
    is_secure = web.scheme == "https"
    found = {
        Protocol.HTTP: {"host": web.netloc, "protocol": web.scheme},
        Protocol.SSE: {"host": web.netloc, "protocol": "sse", "pathname": "/v1/events"},
        Protocol.WEBSOCKET: {
            "host": web.netloc,
            "protocol": "wss" if is_secure else "ws",
            "pathname": "/v1/stream",
        },
    }
    if where.mqtt_url:
        mqtt = urlsplit(where.mqtt_url)
        found[Protocol.MQTT] = {"host": mqtt.netloc, "protocol": mqtt.scheme, "protocolVersion": "5.0"}
    password = [{"$ref": "#/components/securitySchemes/password"}]
    return {
        door: {**server, "description": _SAID_OF_DOORS[door], "security": password if door is Protocol.MQTT else _KEY}
        for door, server in found.items()
    }


_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "key": {"type": "httpApiKey", "in": "header", "name": "X-API-Key"},
    "password": {"type": "userPassword", "description": "The key is the password."},
}


def _channel(
    channel: Channel,
    name: str,
    doors: Mapping[Protocol, Any],
    schemas: dict[str, Any],
    subjects: Mapping[str, Latest],
) -> dict[str, Any]:
    said: dict[str, Any] = {"address": channel.address}
    if _NOT_IN_AN_ADDRESS & set(channel.address):
        said = {"address": None, "x-address": channel.address}
    if channel.title:
        said["title"] = channel.title
    if parameters := Template.parse(channel.address).parameters:
        said["parameters"] = {parameter: {"description": "One level of the address."} for parameter in parameters}
    said["messages"] = {MESSAGE: _message(channel, name, schemas, subjects)}
    open_to = [f"#/servers/{door}" for door in channel.protocols if door in doors]
    if open_to:
        said["servers"] = [{"$ref": server} for server in open_to]
    if len(open_to) < len(channel.protocols):
        said["x-protocols"] = list(channel.protocols)
    return said | {"x-on-invalid": channel.on_invalid, "x-retention": dict(channel.retention)}


def _message(channel: Channel, name: str, schemas: dict[str, Any], subjects: Mapping[str, Latest]) -> dict[str, Any]:
    said: dict[str, Any] = {"name": name}
    if channel.schema is None:
        return said
    said["contentType"] = "application/json"
    place = f"#/components/schemas/{name}"
    payload = moved(channel.schema, place)
    if payload is None or not is_asyncapi_schema(payload):
        said["x-schema"] = json.dumps(dict(channel.schema), ensure_ascii=False)
        latest = subjects.get(channel.subject_of_schema)
        payload = None if latest is None else _registered(latest, place)
    if payload is None:
        return said
    schemas[name] = payload
    return said | {"payload": {"$ref": place}}


def _registered(latest: Latest, place: str) -> dict[str, Any] | None:
    """Give the schema of a subject, which stands beside the subject's name; None where it cannot stand here alone."""
    if latest.references:
        return None
    try:
        schema = latest.parsed.value
    except InvalidSchema:
        return None
    if latest.type == AVRO:
        schema = avro.fitting(schema)
        return None if schema is None else {"schemaFormat": avro.FORMAT, "schema": schema}
    payload = moved(schema, place) if isinstance(schema, dict) else None
    return payload if payload is not None and is_asyncapi_schema(payload) else None


def _operation(action: str, name: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{name}"},
        "messages": [{"$ref": f"#/channels/{name}/messages/{MESSAGE}"}],
    }
