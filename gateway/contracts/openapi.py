"""The OpenAPI 3.1 document of what one key may call: its routes and the gateway's own endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from gateway.contracts.bodies import body_of_job, body_of_route, job_types, placed, validated
from gateway.contracts.operations import ANY, JSON, OPERATIONS, PROBLEM, STREAM, Operation, format_operation
from gateway.contracts.parameters import PARAMETER, format_path_parameters
from gateway.contracts.rights import meet
from gateway.contracts.view import Names, View, format_limits
from gateway.protocol import Protocol
from gateway.refusals import Reason
from gateway.snapshot.documents import Route
from gateway.snapshot.endpoints import BUILTIN, CHANNEL_EVENTS, CHANNEL_PREFIX, CHANNEL_SUFFIX, ENDPOINTS, Endpoint
from gateway.snapshot.methods import ANY as ANY_METHOD
from gateway.snapshot.methods import takes
from gateway.snapshot.right import Verb

VERSION = "3.1.0"
VERSION_OF_ALL_METHODS = "3.2.0"
"""Only where a route takes methods that 3.1 has no field for, as few readers know this version."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""Methods that a path of OpenAPI 3.1 has a field for, without TRACE, which is never served."""
QUERY = "QUERY"
"""OpenAPI 3.2 has a field for it, and ``additionalOperations`` for others."""
_DESCRIPTION = (
    "What a client with this key may call. Every operation may answer with problem details; see `reason`. "
    "`x-limits` are the limits of the key. `x-route` is the name of the route of an operation. "
    "A path with GET answers HEAD as well; one with `x-any-method` passes every method on."
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
            paths.add(route.path, method, described, takes_any=ANY_METHOD in route.methods)
    overridden = {route.path for route in all_ if route.reserved_override}
    for path, endpoint in _endpoints(view):
        if path not in overridden:
            described = _of_endpoint(endpoint, names)
            if endpoint.handler == "job.submit":
                described["requestBody"] = body_of_job(view, job_types(view), schemas)
            paths.add(path, endpoint.method, described)
    return {
        "openapi": VERSION_OF_ALL_METHODS if paths.needs_all_methods else VERSION,
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
        self.needs_all_methods = False
        self._by_shape: dict[str, str] = {}

    def add(self, path: str, method: str, described: dict[str, Any], *, takes_any: bool = False) -> None:
        """Add a method of a path; if it exists, as for a WebSocket next to a GET, the responses of both are merged."""
        shape = PARAMETER.sub("{}", path)
        as_written = self._by_shape.setdefault(shape, PARAMETER.sub(r"{\1}", path))
        item = self.items.setdefault(as_written, _item(path))
        for (name, _), parameter in zip(PARAMETER.findall(path), item.get("parameters", ()), strict=True):
            if name != parameter["name"]:
                also = f"For {method}: `{name}`."
                parameter["description"] = f"{parameter.get('description', '')} {also}".strip()
        if takes_any:
            item["x-any-method"] = True
        if method not in METHODS:
            self.needs_all_methods = True
        if method in METHODS or method == QUERY:
            there = item.setdefault(method.lower(), described)
        else:
            there = item.setdefault("additionalOperations", {}).setdefault(method, described)
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
    methods = _methods_of(route)
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
        is_forwarded = spec is _FORWARDED
        if (body := body_of_route(view, route, method, schemas, is_forwarded=is_forwarded)) is not None:
            described["requestBody"] = body
        if is_forwarded and (schema := validated(route, "outbound_schema")) is not None:
            # The policy looks at JSON alone.
            content = {"schema": placed(schema, f"{route.name}-answer", schemas)}
            answer = {**_UPSTREAM_ANSWERS["2XX"], "content": {JSON: content, "*/*": {}}}
            described["responses"]["2XX"] = answer
        yield method, described


def _methods_of(route: Route) -> list[str]:
    """Return the methods of a route, those of which OpenAPI has fields first; a GET answers HEAD as well."""
    methods = [method for method in METHODS if takes(route.methods, method)]
    if "HEAD" in methods and "GET" in methods:
        methods.remove("HEAD")
    return methods + [method for method in route.methods if method not in METHODS and method != ANY_METHOD]


def _spec_of(route: Route, method: str) -> Operation:
    kind = route.handler.get("type")
    if kind == "job":
        return OPERATIONS["job.submit"]
    if kind == "channel":
        by_protocol = {Protocol.SSE.value: "events", Protocol.WEBSOCKET.value: "stream"}
        spec = OPERATIONS[by_protocol.get(route.protocol) or _CHANNEL_METHODS.get(method, "history")]
        return replace(spec, query={name: text for name, text in spec.query.items() if name != "channel"})
    return {Protocol.SSE.value: _EVENT_STREAM, Protocol.WEBSOCKET.value: _WEBSOCKET}.get(route.protocol, _FORWARDED)


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
