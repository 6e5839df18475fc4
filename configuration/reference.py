"""AsyncAPI and OpenAPI documents as reference pages: a summary of the documents that the data plane serves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.contracts import asyncapi, openapi
from gateway.contracts.view import View

Contract = Mapping[str, Any]
"""An OpenAPI or AsyncAPI document, or a part of one."""


@dataclass(frozen=True, slots=True)
class Part:
    """One channel, one server, or one method of one path."""

    name: str
    address: str
    label: str
    summary: str
    facts: tuple[tuple[str, str], ...] = ()
    schemas: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Parts under one heading."""

    title: str
    parts: list[Part] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reference:
    """One kind of document, and how it is summarised."""

    title: str
    written: Callable[[View], dict[str, Any]]
    groups: Callable[[Contract], list[Group]]


def groups_of_calls(document: Contract) -> list[Group]:
    """Summarise an OpenAPI document: routes first, then the built-in endpoints."""
    parts = [
        (operation, _call(document, path, method, item, operation))
        for path, item in document["paths"].items()
        for method, operation in _operations_of(item)
    ]
    routes = [part for operation, part in parts if "x-route" in operation]
    builtin = [part for operation, part in parts if "x-route" not in operation]
    return [group for group in (Group("Routes", routes), Group("Under /v1", builtin)) if group.parts]


def groups_of_channels(document: Contract) -> list[Group]:
    """Summarise an AsyncAPI document: its channels, then the servers by which they are reached."""
    channels = [_channel(document, name, channel) for name, channel in document["channels"].items()]
    servers = [
        Part(
            f"server-{name}", f"{server['host']}{server.get('pathname', '')}", server["protocol"], server["description"]
        )
        for name, server in document["servers"].items()
    ]
    return [group for group in (Group("Channels", channels), Group("Servers", servers)) if group.parts]


REFERENCES: Mapping[str, Reference] = {
    "openapi": Reference("What can be called", openapi.build_openapi, groups_of_calls),
    "asyncapi": Reference("Channels", asyncapi.build_asyncapi, groups_of_channels),
}


def _operations_of(item: Contract) -> Iterator[tuple[str, Contract]]:
    for name, value in item.items():
        if name == "additionalOperations":
            yield from value.items()
        elif name != "parameters" and not name.startswith("x-"):
            yield name.upper(), value


def _call(document: Contract, path: str, method: str, item: Contract, operation: Contract) -> Part:
    facts = [
        (f"{one['name']} ({one['in']})", one.get("description", ""))
        for one in (*item.get("parameters", ()), *operation.get("parameters", ()))
    ]
    responses = {status: response for status, response in operation["responses"].items() if "$ref" not in response}
    facts += [(status, response["description"]) for status, response in responses.items()]
    schemas = list(_schemas(document, "Body", operation.get("requestBody", {})))
    for status, response in responses.items():
        schemas += _schemas(document, status, response)
    return Part(operation["operationId"], path, method, operation["summary"], tuple(facts), tuple(schemas))


def _channel(document: Contract, name: str, channel: Contract) -> Part:
    servers = [server["$ref"].rsplit("/", 1)[1] for server in channel.get("servers", ())] or ["all"]
    facts = [
        ("protocols", ", ".join(channel.get("x-protocols", servers))),
        ("invalid events", channel["x-on-invalid"]),
        *((f"kept: {bound}", str(amount)) for bound, amount in channel["x-retention"].items()),
    ]
    message = channel["messages"][asyncapi.MESSAGE]
    named = message.get("x-schema-text", message.get("x-schema", ""))
    text = _json(_resolved(document, message["payload"])) if "payload" in message else named
    address = channel.get("x-address") or channel["address"]
    schemas = ((message.get("contentType", ""), text),) if text else ()
    return Part(name, address, "channel", channel.get("title", ""), tuple(facts), schemas)


def _schemas(document: Contract, label: str, body: Contract) -> Iterator[tuple[str, str]]:
    for media_type, content in body.get("content", {}).items():
        if schema := _resolved(document, content.get("schema", {})):
            yield f"{label}, {media_type}", _json(schema)


def _resolved(document: Contract, schema: Contract) -> Contract:
    """Return a schema, or the one that it refers to in the document."""
    resolved: Contract = schema
    if "$ref" in schema:
        resolved = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return resolved


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
