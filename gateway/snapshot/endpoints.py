"""The data plane's own endpoints under ``/v1``, and the right that each needs."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.protocol import Protocol
from gateway.snapshot.right import Verb
from gateway.snapshot.segments import can_meet


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one reserved path."""

    protocol: Protocol
    method: str
    path: str
    handler: str
    verb: Verb | None = None
    """The verb of the right that it needs, on the name that ``parameter`` matched."""
    parameter: str = ""
    anonymous: bool = False
    """Served without a key: the link itself is signed."""


HTTP, SSE, WEBSOCKET = Protocol.HTTP, Protocol.SSE, Protocol.WEBSOCKET

ENDPOINTS = (
    Endpoint(WEBSOCKET, "GET", "/v1/stream", "stream"),
    Endpoint(SSE, "GET", "/v1/events", "events"),
    Endpoint(HTTP, "POST", "/v1/tickets", "ticket"),
    Endpoint(HTTP, "GET", "/v1/me", "me"),
    Endpoint(HTTP, "GET", "/v1/asyncapi.json", "asyncapi"),
    Endpoint(HTTP, "GET", "/v1/openapi.json", "openapi"),
    Endpoint(HTTP, "POST", "/v1/jobs/{type}", "job.submit", Verb.JOBS, "type"),
    Endpoint(HTTP, "GET", "/v1/jobs/{id}", "job.status"),
    Endpoint(HTTP, "DELETE", "/v1/jobs/{id}", "job.cancel"),
    Endpoint(HTTP, "GET", "/v1/jobs/{id}/result", "job.result", anonymous=True),
    Endpoint(SSE, "GET", "/v1/jobs/{id}/events", "job.events"),
    Endpoint(HTTP, "GET", "/v1/subscriptions", "subscription.list"),
    Endpoint(HTTP, "POST", "/v1/subscriptions", "subscription.create"),
    Endpoint(HTTP, "GET", "/v1/subscriptions/{id}", "subscription.show"),
    Endpoint(HTTP, "PATCH", "/v1/subscriptions/{id}", "subscription.change"),
    Endpoint(HTTP, "DELETE", "/v1/subscriptions/{id}", "subscription.delete"),
    Endpoint(HTTP, "POST", "/v1/subscriptions/{id}/rotate", "subscription.rotate"),
    Endpoint(HTTP, "GET", "/v1/subscriptions/{id}/attempts", "subscription.attempts"),
    Endpoint(HTTP, "GET", "/v1/subscriptions/{id}/events", "subscription.pull"),
    Endpoint(HTTP, "POST", "/v1/subscriptions/{id}/ack", "subscription.ack"),
    Endpoint(HTTP, "POST", "/v1/subscriptions/{id}/nack", "subscription.nack"),
    Endpoint(HTTP, "POST", "/v1/subscriptions/{id}/extend", "subscription.extend"),
)
"""Channel addresses may hold slashes, so ``/v1/channels/{address}/events`` is matched by :data:`CHANNEL_EVENTS`."""

BUILTIN = "builtin"
"""The handler type of a route that puts policies before one of the gateway's own endpoints."""
MQTT_PATH = "/mqtt"
BUILTINS = {Protocol.WEBSOCKET: "/v1/stream", Protocol.SSE: "/v1/events", Protocol.MQTT: MQTT_PATH}
"""These endpoints by protocol, and the path of a route to each. MQTT has no path of its own."""

REGISTRY_PREFIX = "/registry"
REGISTRY = tuple(
    Endpoint(HTTP, method, path, "registry")
    for method in ("GET", "POST", "PUT", "DELETE")
    for path in (REGISTRY_PREFIX, REGISTRY_PREFIX + "/{rest...}")
)
"""The rest is read from the raw path, as names of subjects may contain slashes."""

CHANNEL_PREFIX, CHANNEL_SUFFIX = "/v1/channels/", "/events"
CHANNEL_EVENTS = (
    Endpoint(HTTP, "POST", CHANNEL_PREFIX, "publish", Verb.PUBLISH, "address"),
    Endpoint(HTTP, "GET", CHANNEL_PREFIX, "history", Verb.SUBSCRIBE, "address"),
)

PAGES = ("/docs", "/static", "/healthz", "/readyz")
"""The prefixes of what is served beside the data plane, on its origin."""
RESERVED_PREFIXES = ("/v1", REGISTRY_PREFIX, *PAGES)
"""A route under these must be marked ``reserved_override``, and be exact or match no own address."""


def is_reserved(path: str) -> bool:
    """Return whether the path lies under a reserved prefix."""
    return _is_under(path, RESERVED_PREFIXES)


def is_own(path: str) -> bool:
    """Return whether a path is an address that the gateway serves itself, or a template that also matches one."""
    if _is_under(path, PAGES) or (path.startswith(CHANNEL_PREFIX) and path.endswith(CHANNEL_SUFFIX)):
        return True
    return any(can_meet(path, endpoint.path) for endpoint in (*ENDPOINTS, *REGISTRY))


def _is_under(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == prefix or path.startswith(prefix + "/") for prefix in prefixes)
