"""The AsyncAPI 3.0 document of what one key may send and receive, built from the enforced configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from gateway.contracts import avro
from gateway.contracts.schemas import is_asyncapi_schema, rebase
from gateway.contracts.view import Names, PublicUrls, View, format_limits
from gateway.protocol import Protocol
from gateway.schemas.errors import InvalidSchema
from gateway.schemas.registered import AVRO, Latest
from gateway.snapshot.documents import Channel
from gateway.snapshot.right import Verb
from gateway.wire.content_types import JSON, is_standard

VERSION = "3.0.0"
MESSAGE = "event"
_ACTIONS = ((Verb.PUBLISH, "send"), (Verb.SUBSCRIBE, "receive"))
_NOT_IN_AN_ADDRESS = frozenset("?#")
"""AsyncAPI forbids these in an address; channel addresses may contain them."""
_NUL = "\\u0000"
"""As JSON writes it."""
_REST_END = "...}"
"""Ends the name of a rest, which AsyncAPI does not know: it is described as a parameter."""
_KEY = [{"$ref": "#/components/securitySchemes/bearer"}, {"$ref": "#/components/securitySchemes/key"}]
_PROTOCOL_DESCRIPTIONS = {
    Protocol.HTTP: "POST (publish) and GET (history) /v1/channels/{address}/events; slashes of the address as %2F.",
    Protocol.SSE: "GET /v1/events?channel={address}. The data of an event is its payload, its id the position.",
    Protocol.WEBSOCKET: "One connection for many channels. The payload is the member `data` of the frames "
    '{"type": "publish", "channel", "data"} and {"type": "event", "channel", "id", "time", "data"}.',
    Protocol.MQTT: "MQTT 5.0 and 3.1.1. The topic is the address, the user name `key`, the password the key.",
}
_DESCRIPTION = (
    "What an application with this key may do: `send` means publish, `receive` means subscribe. "
    "Payloads are described by JSON Schema 2020-12 unless stated otherwise. "
    "A schema that AsyncAPI cannot express is given as text in `x-schema`. `x-limits` are the limits of the key."
)


def build_asyncapi(view: View) -> dict[str, Any]:
    """Return the document of the channels that the key may use."""
    servers = _servers(view.urls)
    names = Names()
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for channel in sorted(view.channels, key=lambda channel: channel.address):
        actions = [action for verb, action in _ACTIONS if view.may(verb, channel.address)]
        if not actions:
            continue
        name = names.allocate(channel.address)
        channels[name] = _channel(channel, name, servers, schemas, view.subjects)
        for action in actions:
            operations[f"{action}-{name}"] = _operation(action, name)
    return {
        "asyncapi": VERSION,
        "info": {"title": "Channels", "version": "1", "description": _DESCRIPTION},
        "defaultContentType": "application/json",
        "servers": {protocol.value: server for protocol, server in servers.items()},
        "channels": channels,
        "operations": operations,
        "components": {"schemas": schemas, "securitySchemes": _SECURITY},
        "x-written-by": "gateway",
        "x-limits": format_limits(view.caller.limits),
    }


def _servers(urls: PublicUrls) -> dict[Protocol, dict[str, Any]]:
    web = urlsplit(urls.public_url)
    is_secure = web.scheme == "https"
    servers = {
        Protocol.HTTP: {"host": web.netloc, "protocol": web.scheme},
        Protocol.SSE: {"host": web.netloc, "protocol": "sse", "pathname": "/v1/events"},
        Protocol.WEBSOCKET: {
            "host": web.netloc,
            "protocol": "wss" if is_secure else "ws",
            "pathname": "/v1/stream",
        },
    }
    if urls.mqtt_url:
        mqtt = urlsplit(urls.mqtt_url)
        servers[Protocol.MQTT] = {"host": mqtt.netloc, "protocol": mqtt.scheme, "protocolVersion": "5.0"}
    password = [{"$ref": "#/components/securitySchemes/password"}]
    return {
        protocol: {
            **server,
            "description": _PROTOCOL_DESCRIPTIONS[protocol],
            "security": password if protocol is Protocol.MQTT else _KEY,
        }
        for protocol, server in servers.items()
    }


_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "key": {"type": "httpApiKey", "in": "header", "name": "X-API-Key"},
    "password": {"type": "userPassword", "description": "The key is the password."},
}


def _channel(
    channel: Channel,
    name: str,
    servers: Mapping[Protocol, Any],
    schemas: dict[str, Any],
    subjects: Mapping[str, Latest],
) -> dict[str, Any]:
    described: dict[str, Any] = {"address": channel.address}
    if _NOT_IN_AN_ADDRESS & set(channel.address):
        described = {"address": None, "x-address": channel.address}
    elif channel.address.endswith(_REST_END):
        described = {"address": f"{channel.address.removesuffix(_REST_END)}}}", "x-address": channel.address}
    if channel.title:
        described["title"] = channel.title
    # First those that are restricted to values, in the order in which the channel has them.
    if parameters := dict.fromkeys((*channel.values, *channel.template.parameters)):
        described["parameters"] = {name: _parameter(channel, name) for name in parameters}
    described["messages"] = {MESSAGE: _message(channel, name, schemas, subjects)}
    open_to = [f"#/servers/{protocol}" for protocol in channel.protocols if protocol in servers]
    if open_to:
        described["servers"] = [{"$ref": server} for server in open_to]
    if len(open_to) < len(channel.protocols):
        described["x-protocols"] = list(channel.protocols)
    if not is_standard(channel.content_type):
        described["x-content-type"] = channel.content_type
    return described | {"x-on-invalid": channel.on_invalid, "x-retention": dict(channel.retention)}


def _parameter(channel: Channel, name: str) -> dict[str, Any]:
    values = channel.values.get(name)
    is_rest = channel.address.endswith(f"{{{name}{_REST_END}")
    described = "One level of the address or more." if is_rest else "One level of the address."
    return {"description": described} | ({} if values is None else {"enum": [*values]})


def _message(channel: Channel, name: str, schemas: dict[str, Any], subjects: Mapping[str, Latest]) -> dict[str, Any]:
    message: dict[str, Any] = {"name": name}
    if channel.schema is not None or channel.content_type != JSON:
        message["contentType"] = channel.media_type
    if channel.schema is None:
        return message
    place = f"#/components/schemas/{name}"
    payload = rebase(channel.schema, place)
    if payload is None or not is_asyncapi_schema(payload):
        message["x-schema"] = json.dumps(dict(channel.schema), ensure_ascii=False)
        latest = subjects.get(channel.subject_of_schema)
        payload = None if latest is None else _registered(latest, place)
        if latest is not None:
            message |= _registration(latest, is_shown=payload is not None)
    if payload is None:
        return message
    schemas[name] = payload
    return message | {"payload": {"$ref": place}}


def _registration(latest: Latest, *, is_shown: bool) -> dict[str, Any]:
    """Return what another registry needs to register the latest version as it is here, besides a payload.

    A schema that AsyncAPI cannot express is given as text, unless it refers to others.
    """
    is_text = not is_shown and not latest.references
    values = {
        "x-schema-text": latest.text if is_text else "",
        "x-schema-type": latest.type if is_text else "",
        "x-schema-id": latest.id,
        "x-schema-version": latest.version if latest.version > 1 else None,
        "x-schema-compatibility": latest.compatibility,
        "x-schema-mode": latest.mode,
    }
    return {name: value for name, value in values.items() if value}


def _registered(latest: Latest, place: str) -> dict[str, Any] | None:
    """Return the payload of a registry subject, or None if AsyncAPI cannot express it without references.

    A NUL, as the default of Avro's bytes, is not shown either: most readers cannot store it.
    """
    if latest.references or _NUL in latest.text:
        return None
    try:
        schema = latest.parsed.value
    except InvalidSchema:
        return None
    if latest.type == AVRO:
        schema = avro.to_asyncapi(schema)
        return None if schema is None else {"schemaFormat": avro.FORMAT, "schema": schema}
    payload = rebase(schema, place) if isinstance(schema, dict) else None
    return payload if payload is not None and is_asyncapi_schema(payload) else None


def _operation(action: str, name: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{name}"},
        "messages": [{"$ref": f"#/channels/{name}/messages/{MESSAGE}"}],
    }
