"""OpenAPI 3.1 of what one key may call: its routes, and the data plane's own addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from gateway.contracts.operations import ANY, JSON, PROBLEM, SAID, Said, operation
from gateway.contracts.rights import meet
from gateway.contracts.schemas import is_openapi_schema, moved
from gateway.contracts.view import Names, View, limits
from gateway.protocol import Protocol
from gateway.refusals import Reason
from gateway.snapshot.documents import Route
from gateway.snapshot.endpoints import BUILTIN, CHANNEL_EVENTS, CHANNEL_PREFIX, CHANNEL_SUFFIX, ENDPOINTS, Endpoint
from gateway.snapshot.right import Verb

VERSION = "3.1.0"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_WITH_A_BODY = frozenset({"POST", "PUT", "PATCH"})
_PARAMETER = re.compile(r"\{([^{}]+?)(\.\.\.)?\}")
_DESCRIPTION = (
    "What the holder of this key may call. Every address may refuse with problem details, of which `reason` says why. "
    "`x-limits` are the limits of the key. A route's address carries its name in `x-route`."
)
_WEBSOCKET = Said("A WebSocket, passed on to the service behind it.", {101: ("The socket is open.", {})})
_EVENT_STREAM = Said("Server-sent events of the service behind it.", {200: ("Events.", {"text/event-stream": ANY})})
_FORWARDED = Said("Forwarded to the service behind it.", {})
_CHANNEL_METHODS = {"POST": "publish", "GET": "history"}


def written(view: View) -> dict[str, Any]:
    """Give the document of the routes and addresses that the key may call."""
    paths, names = _Paths(), Names()
    schemas: dict[str, Any] = {}
    # What stands before the gateway's own doors is described as these are.
    all_ = [route for route in view.routes if route.handler.get("type") != BUILTIN]
    routes = [route for route in all_ if _may_call(view, route)]
    for route in sorted(routes, key=lambda route: route.name):
        for method, described in _of_route(view, route, schemas, names):
            paths.add(route.path, method, described)
    overridden = {route.path for route in all_ if route.reserved_override}
    for path, endpoint in _endpoints(view):
        if path not in overridden:
            paths.add(path, endpoint.method, _of_endpoint(endpoint, names))
    return {
        "openapi": VERSION,
        "info": {"title": "API", "version": "1", "description": _DESCRIPTION},
        "servers": [{"url": view.where.public_url}],
        "security": [{"bearer": []}, {"key": []}],
        "paths": paths.found,
        "components": {
            "schemas": {"Problem": _PROBLEM, **schemas},
            "responses": _REFUSALS,
            "securitySchemes": _SECURITY,
        },
        "x-written-by": "gateway",
        "x-limits": limits(view.caller.limits),
    }


class _Paths:
    """The paths of a document: two that differ in the names of their parameters alone are one."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}
        self._by_shape: dict[str, str] = {}

    def add(self, path: str, method: str, described: dict[str, Any]) -> None:
        """Add a method of a path; where it is there, as for a WebSocket beside a GET, it may answer as either."""
        shape = _PARAMETER.sub("{}", path)
        as_written = self._by_shape.setdefault(shape, _PARAMETER.sub(r"{\1}", path))
        item = self.found.setdefault(as_written, _item(path))
        for (name, _), parameter in zip(_PARAMETER.findall(path), item.get("parameters", ()), strict=True):
            if name != parameter["name"]:
                also = f"For {method}: `{name}`."
                parameter["description"] = f"{parameter.get('description', '')} {also}".strip()
        there = item.setdefault(method.lower(), described)
        if there is not described:
            there["responses"] = {**described["responses"], **there["responses"]}


def _item(path: str) -> dict[str, Any]:
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string"},
            **({"description": "All that follows, slashes too."} if is_rest else {}),
        }
        for name, is_rest in _PARAMETER.findall(path)
    ]
    return {"parameters": parameters} if parameters else {}


def _may_call(view: View, route: Route) -> bool:
    """Say whether the key may call a route, or an operation of it (``call:ROUTE#…``)."""
    ceiling, operation = view.caller.ceiling, f"{Verb.CALL}:{route.name}#"
    return view.may(Verb.CALL, route.name) or any(
        scope.startswith(operation) and (ceiling is None or any(meet(bound, scope) for bound in ceiling))
        for scope in view.caller.scopes
    )


def _of_route(view: View, route: Route, schemas: dict[str, Any], names: Names) -> Iterator[tuple[str, dict[str, Any]]]:
    methods = [method for method in METHODS if method in (route.methods or METHODS)]
    for method in methods:
        said = _said_of(route, method)
        described = _named(
            operation(said), names.of(route.name if len(methods) == 1 else f"{route.name}-{method.lower()}")
        )
        described["x-route"] = route.name
        if method in _WITH_A_BODY and said is _FORWARDED:
            described["requestBody"] = {"content": {"*/*": {}}}
        if (schema := _schema_of(view, route, method)) is not None:
            content = {"schema": _placed(schema, f"{route.name}-body", schemas)}
            described["requestBody"] = {"required": True, "content": {JSON: content}}
        if said is _FORWARDED and (schema := _validated(route, "outbound_schema")) is not None:
            content = {"schema": _placed(schema, f"{route.name}-answer", schemas)}
            described["responses"]["2XX"] = {"description": "Answered.", "content": {JSON: content}}
        yield method, described


def _said_of(route: Route, method: str) -> Said:
    kind = route.handler.get("type")
    if kind == "job":
        return SAID["job.submit"]
    if kind == "channel":
        by_protocol = {Protocol.SSE.value: "events", Protocol.WEBSOCKET.value: "stream"}
        said = SAID[by_protocol.get(route.protocol) or _CHANNEL_METHODS.get(method, "history")]
        return replace(said, query={name: text for name, text in said.query.items() if name != "channel"})
    return {Protocol.SSE.value: _EVENT_STREAM, Protocol.WEBSOCKET.value: _WEBSOCKET}.get(route.protocol, _FORWARDED)


def _schema_of(view: View, route: Route, method: str) -> Mapping[str, Any] | None:
    """Give the schema that a body must satisfy: of the channel published to, or of the policy `validate`."""
    if method not in _WITH_A_BODY:
        return None
    if route.handler.get("type") == "channel":
        address = route.handler["channel"]
        return next((channel.schema for channel in view.channels if channel.address == address), None)
    return _validated(route, "schema")


def _validated(route: Route, option: str) -> Mapping[str, Any] | None:
    """Give the schema that the policy `validate` of a route names under an option, where it is enforced."""
    for policy in route.policies:
        schema = policy.options.get(option)
        if policy.type == "validate" and policy.mode == "enforce" and isinstance(schema, Mapping):
            return schema
    return None


def _placed(schema: Mapping[str, Any], name: str, schemas: dict[str, Any]) -> dict[str, Any]:
    """Put a schema among the document's, and give what refers to it; anything where it cannot be carried."""
    place = f"#/components/schemas/{name}"
    found = moved(schema, place)
    if found is None or not is_openapi_schema(found):
        return {}
    schemas[name] = found
    return {"$ref": place}


def _endpoints(view: View) -> Iterator[tuple[str, Endpoint]]:
    for endpoint in ENDPOINTS:
        if endpoint.verb is None or view.may_any(endpoint.verb):
            yield endpoint.path, endpoint
    for endpoint in CHANNEL_EVENTS:
        if endpoint.verb is not None and view.may_any(endpoint.verb):
            yield f"{CHANNEL_PREFIX}{{address}}{CHANNEL_SUFFIX}", endpoint


def _of_endpoint(endpoint: Endpoint, names: Names) -> dict[str, Any]:
    said = SAID.get(endpoint.handler) or Said(endpoint.handler, {})
    described = _named(operation(said), names.of(f"v1.{endpoint.handler}"))
    return described | ({"security": []} if endpoint.anonymous else {})


def _named(described: dict[str, Any], name: str) -> dict[str, Any]:
    refused = {"429": {"$ref": "#/components/responses/Limited"}, "default": {"$ref": "#/components/responses/Refused"}}
    return {"operationId": name, **described, "responses": described["responses"] | refused}


_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The key, or a token of an issuer."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_PROBLEM = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "detail", "reason"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "reason": {"enum": [reason.value for reason in Reason]},
        "retry_after_s": {"type": "number"},
        "violated-policies": {"type": "array", "items": {"type": "string"}},
        "pointer": {"type": "string", "description": "Where in the payload the fault is (RFC 6901)."},
    },
}
_CONTENT = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_REFUSALS = {
    "Refused": {"description": "Refused, or for a route the answer of the service behind it.", "content": _CONTENT},
    "Limited": {
        "description": "Refused by a limit.",
        "headers": {
            "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}},
            "RateLimit-Policy": {"description": "The limits.", "schema": {"type": "string"}},
            "RateLimit": {"description": "What is left of them.", "schema": {"type": "string"}},
        },
        "content": _CONTENT,
    },
}
