"""AsyncAPI and OpenAPI documents as pages: the same documents as the data plane serves, told in a few words a part."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.contracts import asyncapi, openapi
from gateway.contracts.view import View

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """One channel, or one method of one address."""

    name: str
    address: str
    label: str
    summary: str
    facts: tuple[tuple[str, str], ...] = ()
    schemas: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Parts that belong together."""

    title: str
    parts: list[Part] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reference:
    """One kind of document, and how it is told."""

    title: str
    written: Callable[[View], dict[str, Any]]
    groups: Callable[[Document], list[Group]]


def groups_of_calls(document: Document) -> list[Group]:
    """Tell an OpenAPI document: routes first, then the addresses of the gateway's own."""
    parts = [
        (operation, _call(document, path, method, item, operation))
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    ]
    routes = [part for operation, part in parts if "x-route" in operation]
    own = [part for operation, part in parts if "x-route" not in operation]
    return [group for group in (Group("Routes", routes), Group("Under /v1", own)) if group.parts]


def groups_of_channels(document: Document) -> list[Group]:
    """Tell an AsyncAPI document: its channels, then the doors by which they are reached."""
    channels = [_channel(document, name, channel) for name, channel in document["channels"].items()]
    doors = [
        Part(f"door-{name}", f"{server['host']}{server.get('pathname', '')}", server["protocol"], server["description"])
        for name, server in document["servers"].items()
    ]
    return [group for group in (Group("Channels", channels), Group("Doors", doors)) if group.parts]


REFERENCES: Mapping[str, Reference] = {
    "openapi": Reference("What can be called", openapi.written, groups_of_calls),
    "asyncapi": Reference("Channels", asyncapi.written, groups_of_channels),
}


def _call(document: Document, path: str, method: str, item: Document, operation: Document) -> Part:
    facts = [
        (f"{one['name']} ({one['in']})", one.get("description", ""))
        for one in (*item.get("parameters", ()), *operation.get("parameters", ()))
    ]
    answers = {status: said for status, said in operation["responses"].items() if "$ref" not in said}
    facts += [(status, said["description"]) for status, said in answers.items()]
    schemas = list(_schemas(document, "Body", operation.get("requestBody", {})))
    for status, said in answers.items():
        schemas += _schemas(document, status, said)
    return Part(operation["operationId"], path, method.upper(), operation["summary"], tuple(facts), tuple(schemas))


def _channel(document: Document, name: str, channel: Document) -> Part:
    doors = [server["$ref"].rsplit("/", 1)[1] for server in channel.get("servers", ())] or ["all"]
    facts = [
        ("doors", ", ".join(channel.get("x-protocols", doors))),
        ("invalid events", channel["x-on-invalid"]),
        *((f"kept: {bound}", str(amount)) for bound, amount in channel["x-retention"].items()),
    ]
    message = channel["messages"][asyncapi.MESSAGE]
    text = _json(_found(document, message["payload"])) if "payload" in message else message.get("x-schema", "")
    address = channel["address"] or channel["x-address"]
    schemas = ((message.get("contentType", ""), text),) if text else ()
    return Part(name, address, "channel", channel.get("title", ""), tuple(facts), schemas)


def _schemas(document: Document, label: str, said: Document) -> Iterator[tuple[str, str]]:
    for media_type, content in said.get("content", {}).items():
        if schema := _found(document, content.get("schema", {})):
            yield f"{label}, {media_type}", _json(schema)


def _found(document: Document, schema: Document) -> Document:
    """Give the schema that a reference to one of the document's means."""
    found: Document = schema
    if "$ref" in schema:
        found = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return found


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
