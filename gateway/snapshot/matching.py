"""What a request is for: a route or an endpoint of the gateway, and the handler that serves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.documents import Route
from gateway.snapshot.endpoints import BUILTIN, ENDPOINTS, Endpoint
from gateway.snapshot.methods import takes
from gateway.snapshot.paths import KEPT_SLASH
from gateway.snapshot.right import Right, Verb
from gateway.wire.subjects import AddressError, filled

_CHANNEL_HANDLERS = {"sse": "events", "websocket": "stream"}

Entries = list[tuple[Route | Endpoint, Mapping[str, str]]]
"""What is served at a path, each with the values of the path's parameters."""


@dataclass(frozen=True, slots=True)
class Match:
    """The route or endpoint that a request is for, and how it is handled."""

    protocol: Protocol
    handler: str
    target: str
    rights: tuple[Right, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    route: Route | None = None
    is_anonymous: bool = False


def takes_method(entry: Route | Endpoint, method: str) -> bool:
    """Return whether a route or endpoint is for requests of this method."""
    return entry.method == method if isinstance(entry, Endpoint) else takes(entry.methods, method)


def match_of(entry: Route | Endpoint, parameters: Mapping[str, str], method: str) -> Match:
    """Return the match of a request that a route or endpoint is for.

    Raises Refused ``invalid-request`` where the path fills in no address of the route's channel.
    """
    return _route_match(entry, parameters, method) if isinstance(entry, Route) else _endpoint_match(entry, parameters)


def methods_of(entry: Route | Endpoint) -> tuple[str, ...]:
    return entry.methods if isinstance(entry, Route) else (entry.method,)


def _endpoint_match(endpoint: Endpoint, parameters: Mapping[str, str]) -> Match:
    name = parameters.get(endpoint.parameter, "")
    return Match(
        protocol=endpoint.protocol,
        handler=endpoint.handler,
        target=name or endpoint.path,
        rights=(Right(endpoint.verb, name),) if endpoint.verb else (),
        parameters=parameters,
        is_anonymous=endpoint.anonymous,
    )


def _route_match(route: Route, parameters: Mapping[str, str], method: str) -> Match:
    kind = route.handler.get("type")
    if kind == BUILTIN:
        own = next(one for one in ENDPOINTS if (one.protocol, one.path) == (route.protocol, route.path))
        return replace(_endpoint_match(own, parameters), route=route)
    if kind == "channel":
        handler = _CHANNEL_HANDLERS.get(route.protocol) or ("publish" if method == "POST" else "history")
        parameters = {**parameters, "address": _address(route, parameters)}
    elif kind == "job":
        handler = "job.submit"
        parameters = {**parameters, "type": route.handler["job_type"]}
    elif kind == "placeholder":
        handler = kind
    else:
        handler = "websocket" if route.protocol == Protocol.WEBSOCKET else "upstream"
    return Match(
        protocol=Protocol(route.protocol),
        handler=handler,
        target=route.name,
        rights=(Right(Verb.CALL, route.name),),
        parameters=parameters,
        route=route,
    )


def _address(route: Route, parameters: Mapping[str, str]) -> str:
    """Return the address of a route's channel, with the values of the path's parameters."""
    address: str = route.handler["channel"]
    if not parameters:
        return address
    try:
        return filled(address, {name: value.replace(KEPT_SLASH, "/") for name, value in parameters.items()})
    except AddressError as error:
        raise Refused(Reason.INVALID_REQUEST, f"{error}.", cause="invalid-address") from None


def target_of(route: Route) -> str:
    """Return the target that calls of a route are counted for: behind it, one of the gateway's own endpoints may be."""
    if route.handler.get("type") != BUILTIN:
        return route.name
    return Protocol.MQTT.value if route.protocol == Protocol.MQTT else route.path
