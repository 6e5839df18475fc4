"""The OpenAPI 3.1 document of what one key may call: its routes and the gateway's own endpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from gateway.contracts.operations import ANY, JSON, OPERATIONS, PROBLEM, STREAM, Operation, format_operation
from gateway.contracts.parameters import PARAMETER, format_path_parameters
from gateway.contracts.rights import meet
from gateway.contracts.schemas import is_openapi_schema, rebase
from gateway.contracts.view import Names, View, format_limits
from gateway.protocol import Protocol
from gateway.refusals import Reason
from gateway.snapshot.documents import Channel, Route
from gateway.snapshot.endpoints import BUILTIN, CHANNEL_EVENTS, CHANNEL_PREFIX, CHANNEL_SUFFIX, ENDPOINTS, Endpoint
from gateway.snapshot.methods import takes
from gateway.snapshot.right import Verb
from gateway.wire.content_types import JSON as CHANNEL_JSON

VERSION = "3.1.0"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_WITH_A_BODY = frozenset({"POST", "PUT", "PATCH"})
_DESCRIPTION = (
    "What a client with this key may call. Every operation may answer with problem details; see `reason`. "
    "`x-limits` are the limits of the key. `x-route` is the name of the route of an operation."
)
_WEBSOCKET = Operation("A WebSocket, forwarded to the upstream service.", {101: ("The connection is open.", {})})
_EVENT_STREAM = Operation("Server-sent events of the upstream service.", {200: ("Events.", {STREAM: ANY, "*/*": ANY})})
_FORWARDED = Operation("Forwarded to the upstream service.", {})
_OF_UPSTREAMS = (_WEBSOCKET, _EVENT_STREAM, _FORWARDED)
_UPSTREAM_ANSWERS: dict[str, Any] = {
    "2XX": {"description": "The answer of the upstream service.", "content": {"*/*": {}}},
    "default": {
        "description": "Any other answer of the upstream service; or refused, with problem details (`Problem`).",
        "content": {"*/*": {}},
    },
}
_CHANNEL_METHODS = {"POST": "publish", "GET": "history"}


def build_openapi(view: View) -> dict[str, Any]:
    """Return the document of the routes and endpoints that the key may call."""
    paths, names = _Paths(), Names()
    schemas: dict[str, Any] = {}
    # A route to a built-in endpoint is described with the endpoints.
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
        "servers": [{"url": view.urls.public_url}],
        "security": [{"bearer": []}, {"key": []}],
        "paths": paths.items,
        "components": {
            "schemas": {"Problem": _PROBLEM, **schemas},
            "responses": _REFUSALS,
            "securitySchemes": _SECURITY,
        },
        "x-written-by": "gateway",
        "x-limits": format_limits(view.caller.limits),
    }


class _Paths:
    """The paths of a document; those that differ only in the names of their parameters are merged."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self._by_shape: dict[str, str] = {}

    def add(self, path: str, method: str, described: dict[str, Any]) -> None:
        """Add a method of a path; if it exists, as for a WebSocket next to a GET, the responses of both are merged."""
        shape = PARAMETER.sub("{}", path)
        as_written = self._by_shape.setdefault(shape, PARAMETER.sub(r"{\1}", path))
        item = self.items.setdefault(as_written, _item(path))
        for (name, _), parameter in zip(PARAMETER.findall(path), item.get("parameters", ()), strict=True):
            if name != parameter["name"]:
                also = f"For {method}: `{name}`."
                parameter["description"] = f"{parameter.get('description', '')} {also}".strip()
        there = item.setdefault(method.lower(), described)
        if there is not described:
            there["responses"] = {**described["responses"], **there["responses"]}


def _item(path: str) -> dict[str, Any]:
    parameters = format_path_parameters(path)
    return {"parameters": parameters} if parameters else {}


def _may_call(view: View, route: Route) -> bool:
    """Return whether the key may call a route, or an operation of it (``call:ROUTE#…``)."""
    ceiling, operation = view.caller.ceiling, f"{Verb.CALL}:{route.name}#"
    return view.may(Verb.CALL, route.name) or any(
        scope.startswith(operation) and (ceiling is None or any(meet(bound, scope) for bound in ceiling))
        for scope in view.caller.scopes
    )


def _of_route(view: View, route: Route, schemas: dict[str, Any], names: Names) -> Iterator[tuple[str, dict[str, Any]]]:
    methods = [method for method in METHODS if takes(route.methods, method)]
    for method in methods:
        spec = _spec_of(route, method)
        described = _named(
            format_operation(spec),
            names.allocate(route.name if len(methods) == 1 else f"{route.name}-{method.lower()}"),
        )
        described["x-route"] = route.name
        if spec in _OF_UPSTREAMS:
            # Its 429 has other fields than ours: nothing is promised of it.
            del described["responses"]["429"]
            described["responses"] |= _UPSTREAM_ANSWERS
        if method in _WITH_A_BODY and spec is _FORWARDED:
            described["requestBody"] = {"content": {"*/*": {}}}
        if (schema := _schema_of(view, route, method)) is not None:
            content = {"schema": _placed(schema, f"{route.name}-body", schemas)}
            described["requestBody"] = {"required": True, "content": {JSON: content}}
        elif (
            method == "POST"
            and (channel := _channel_of(view, route)) is not None
            and channel.content_type != CHANNEL_JSON
        ):
            described["requestBody"] = {"required": True, "content": {channel.media_type: {}}}
        if spec is _FORWARDED and (schema := _validated(route, "outbound_schema")) is not None:
            # The policy looks at JSON alone.
            content = {"schema": _placed(schema, f"{route.name}-answer", schemas)}
            answer = {**_UPSTREAM_ANSWERS["2XX"], "content": {JSON: content, "*/*": {}}}
            described["responses"]["2XX"] = answer
        yield method, described


def _spec_of(route: Route, method: str) -> Operation:
    kind = route.handler.get("type")
    if kind == "job":
        return OPERATIONS["job.submit"]
    if kind == "channel":
        by_protocol = {Protocol.SSE.value: "events", Protocol.WEBSOCKET.value: "stream"}
        spec = OPERATIONS[by_protocol.get(route.protocol) or _CHANNEL_METHODS.get(method, "history")]
        return replace(spec, query={name: text for name, text in spec.query.items() if name != "channel"})
    return {Protocol.SSE.value: _EVENT_STREAM, Protocol.WEBSOCKET.value: _WEBSOCKET}.get(route.protocol, _FORWARDED)


def _schema_of(view: View, route: Route, method: str) -> Mapping[str, Any] | None:
    """Return the schema that a body must satisfy: that of the target channel, or of the policy `validate`."""
    if method not in _WITH_A_BODY:
        return None
    if route.handler.get("type") == "channel":
        channel = _channel_of(view, route)
        return None if channel is None else channel.schema
    return _validated(route, "schema")


def _channel_of(view: View, route: Route) -> Channel | None:
    """Return the channel that a route publishes to or reads from, if it has no parameters."""
    address = route.handler.get("channel")
    return next((channel for channel in view.channels if channel.address == address), None)


def _validated(route: Route, option: str) -> Mapping[str, Any] | None:
    """Return the schema in an option of a route's policy `validate`, if the policy is enforced."""
    for policy in route.policies:
        schema = policy.options.get(option)
        if policy.type == "validate" and policy.mode == "enforce" and isinstance(schema, Mapping):
            return schema
    return None


def _placed(schema: Mapping[str, Any], name: str, schemas: dict[str, Any]) -> dict[str, Any]:
    """Add a schema to the document and return a reference to it; an empty schema if it cannot be embedded."""
    place = f"#/components/schemas/{name}"
    embedded = rebase(schema, place)
    if embedded is None or not is_openapi_schema(embedded):
        return {}
    schemas[name] = embedded
    return {"$ref": place}


def _endpoints(view: View) -> Iterator[tuple[str, Endpoint]]:
    for endpoint in ENDPOINTS:
        if endpoint.verb is None or view.may_any(endpoint.verb):
            yield endpoint.path, endpoint
    for endpoint in CHANNEL_EVENTS:
        if endpoint.verb is not None and view.may_any(endpoint.verb):
            yield f"{CHANNEL_PREFIX}{{address}}{CHANNEL_SUFFIX}", endpoint


def _of_endpoint(endpoint: Endpoint, names: Names) -> dict[str, Any]:
    spec = OPERATIONS.get(endpoint.handler) or Operation(endpoint.handler, {})
    described = _named(format_operation(spec), names.allocate(f"v1.{endpoint.handler}"))
    return described | ({"security": []} if endpoint.anonymous else {})


def _named(described: dict[str, Any], name: str) -> dict[str, Any]:
    refused = {"429": {"$ref": "#/components/responses/Limited"}, "default": {"$ref": "#/components/responses/Refused"}}
    return {"operationId": name, **described, "responses": described["responses"] | refused}


_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The key, or a JWT of an issuer."},
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
        "pointer": {"type": "string", "description": "JSON Pointer of the error in the payload (RFC 6901)."},
    },
}
_CONTENT = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_REFUSALS = {
    "Refused": {"description": "Refused; for a route, also the response of the upstream service.", "content": _CONTENT},
    "Limited": {
        "description": "Refused by a limit.",
        "headers": {
            "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}},
            "RateLimit-Policy": {"description": "The limits.", "schema": {"type": "string"}},
            "RateLimit": {"description": "What remains of them.", "schema": {"type": "string"}},
        },
        "content": _CONTENT,
    },
}
