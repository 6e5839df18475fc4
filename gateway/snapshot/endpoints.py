"""The addresses under ``/v1`` that the data plane itself answers, and the right that each needs."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.protocol import Protocol
from gateway.snapshot.right import Verb


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one reserved address."""

    protocol: Protocol
    method: str
    path: str
    handler: str
    verb: Verb | None = None
    """The right that it needs, on the name that ``parameter`` matched."""
    parameter: str = ""
    anonymous: bool = False
    """Served without a key: a signed link is its own proof."""


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
"""The handler of a route that is one of the gateway's own doors, with policies before it."""
MQTT_PATH = "/mqtt"
BUILTINS = {Protocol.WEBSOCKET: "/v1/stream", Protocol.SSE: "/v1/events", Protocol.MQTT: MQTT_PATH}
"""These doors, and the path by which a route names each. The listener of MQTT has none of its own."""

REGISTRY_PREFIX = "/registry"
REGISTRY = tuple(
    Endpoint(HTTP, method, path, "registry")
    for method in ("GET", "POST", "PUT", "DELETE")
    for path in (REGISTRY_PREFIX, REGISTRY_PREFIX + "/{rest...}")
)
"""What lies below is read from the path as it came: names of subjects may hold slashes."""

CHANNEL_PREFIX, CHANNEL_SUFFIX = "/v1/channels/", "/events"
CHANNEL_EVENTS = (
    Endpoint(HTTP, "POST", CHANNEL_PREFIX, "publish", Verb.PUBLISH, "address"),
    Endpoint(HTTP, "GET", CHANNEL_PREFIX, "history", Verb.SUBSCRIBE, "address"),
)

RESERVED_PREFIXES = ("/v1", "/registry", "/docs", "/static", "/healthz", "/readyz")
"""A route may take an address under these only when it is exact and marked ``reserved_override``."""


def is_reserved(path: str) -> bool:
    """Say whether the path lies under a reserved prefix."""
    return any(path == prefix or path.startswith(prefix + "/") for prefix in RESERVED_PREFIXES)
