"""How the calls of a route go to its upstream: where, under which names, with which credential. Compiled once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import orjson

from gateway.call import Call
from gateway.config import Config
from gateway.credentials.api_keys import holds_credential
from gateway.credentials.sealed import NotOpened, unseal
from gateway.handlers.proxy import destination
from gateway.handlers.proxy.own_names import OwnNames
from gateway.handlers.proxy.path_map import PathMap
from gateway.handlers.proxy.target import Target, target_of
from gateway.identity.client_address import UNKNOWN_FRONT
from gateway.identity.places import is_foreign
from gateway.refusals import Reason, Refused
from gateway.snapshot.documents import Route, Timeouts, credential_purpose
from gateway.wire.ai_dialects import is_operation
from gateway.wire.forwarded import PublicName, forwarded_fields
from gateway.wire.header_fields import Headers, lines_of

AUTHORIZATION = b"authorization"
AI_TIMEOUT_S = 600.0
"""As long as the SDKs of models wait by default; a model may think for minutes before its first byte."""
PATIENCE_S = 600.0
"""How long the one request of an idempotency key waits for the head of its response."""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """How the calls of one route are forwarded."""

    route: Route
    target: Target
    paths: PathMap
    has_credentials: bool
    """Whether the upstream receives any: the caller's for it, or the route's own."""
    prefix: str | None
    """What each caller's path begins with, if no parameter is part of it."""
    patient_route: Route
    """The route for the one request of an idempotency key, which goes on when its caller no longer waits."""

    def host(self, call: Call) -> str:
        """Return the ``Host`` to send."""
        return (public_host(call) if self.route.preserve_host else "") or self.target.host

    def request_line(self, call: Call) -> bytes:
        """Return the line that begins a request to the upstream."""
        return f"{call.method} {self.target.path_for(call)} HTTP/1.1\r\n".encode("latin-1")

    def public_name(self, call: Call, config: Config) -> PublicName:
        """Return the names by which the caller reached the route."""
        front = call.front or UNKNOWN_FRONT
        prefix, _ = self.paths.for_call(call.parameters, front.prefix)
        return PublicName.of(front.scheme or config.public_scheme, public_host(call), front.port, prefix)

    def forwarded(self, call: Call, config: Config) -> bytes:
        """Return the lines that report the caller's address and names to the upstream."""
        if call.front is None and self.prefix is not None:
            return _forwarded(call.ip, config.public_scheme, call.header(b"host") or "", self.prefix)
        return lines_of(forwarded_fields(call.ip, self.public_name(call, config)))

    def timeouts_for(self, call: Call, config: Config) -> Timeouts:
        """Return how long to wait for the upstream: longer for a model's answer, unless the route says how long."""
        own = self.route.timeouts
        if call.method != "POST" or not self._is_for_model(call):
            return own
        first_byte_s = own.first_byte_s or max(AI_TIMEOUT_S, config.upstream_first_byte_timeout_s)
        return Timeouts(own.connect_s, first_byte_s, own.idle_s or max(AI_TIMEOUT_S, config.upstream_idle_timeout_s))

    def _is_for_model(self, call: Call) -> bool:
        """Return whether the caller's path or the upstream's is that of an operation of a model."""
        return is_operation(call.address) or is_operation(self.target.path_for(call).partition("?")[0])

    def own_names(self, call: Call, config: Config) -> OwnNames:
        """Return the names with which the head of a response is rewritten."""
        _, upstream_prefix = self.paths.for_call(call.parameters)
        return OwnNames(self.target.origin, self.host(call), self.public_name(call, config), upstream_prefix)

    def request_headers(self, call: Call, passed: Headers, config: Config) -> Headers:
        """Return the headers that pass to the upstream, with its own origin and its credentials.

        Raises Refused ``upstream-unavailable`` if the route's credential cannot be decrypted, and ``invalid-request``.
        """
        headers = [*passed, *call.added_headers]
        if not self.route.preserve_host and call.origin is not None and not is_foreign(call.origin, public_host(call)):
            # What is of one origin for the caller is so for the upstream, which compares it with its own name.
            own = f"{self.target.origin.scheme}://{self.target.host}".encode()
            headers = [(name, own if name == b"origin" else value) for name, value in headers]
        if call.method in destination.METHODS:
            headers = self._with_destination(call, headers, config)
        if not self.has_credentials or call.is_anonymous:
            return headers
        if self.route.keeps_authorization:
            headers += [
                header for header in call.headers if header[0] == AUTHORIZATION and _is_for_upstream(call, header[1])
            ]
        if self.route.sealed_credential:
            credential = _opened(config.secret_key, self.route.name, self.route.sealed_credential)
            headers = [*(header for header in headers if header[0] != credential[0]), credential]
        return headers

    def is_authorization_foreign(self, config: Config) -> bool:
        """Return whether ``Authorization`` beside a key is none of the gateway's: the route keeps it, or sends its own.

        Raises Refused ``upstream-unavailable`` if the route's credential cannot be decrypted.
        """
        if self.route.keeps_authorization or not self.route.sealed_credential:
            return self.route.keeps_authorization
        return _opened(config.secret_key, self.route.name, self.route.sealed_credential)[0] == AUTHORIZATION

    def _with_destination(self, call: Call, headers: Headers, config: Config) -> Headers:
        names, scheme = self.own_names(call, config), self.target.origin.scheme
        beginning = (call.front or UNKNOWN_FRONT).prefix + self.route.path.partition("{")[0]
        return [
            (name, destination.translated(value, names, beginning, scheme) if name == destination.NAME else value)
            for name, value in headers
        ]


def own_names(call: Call, config: Config) -> OwnNames | None:
    """Return the names with which the head of a response is rewritten; None if the route rewrites none."""
    route = call.route
    if route is None or not route.rewrite_location:
        return None
    return forwarding_of(route).own_names(call, config)


@lru_cache(maxsize=16_384)
def forwarding_of(route: Route) -> Forwarding:
    """Return how the calls of a route to an upstream are forwarded."""
    target = target_of(route)
    paths = PathMap.of(route.path, target.path_template)
    first_byte_s = max(PATIENCE_S, route.timeouts.first_byte_s or 0)
    return Forwarding(
        route=route,
        patient_route=replace(route, timeouts=replace(route.timeouts, first_byte_s=first_byte_s), idempotency=False),
        target=target,
        paths=paths,
        prefix=paths.constant_prefix,
        has_credentials=route.keeps_authorization or bool(route.sealed_credential),
    )


def public_host(call: Call) -> str:
    """Return the host that the caller named, as a trusted proxy in front reports it, or as it came."""
    return (call.front.host if call.front is not None else "") or call.header(b"host") or ""


@lru_cache(maxsize=4096)
def _forwarded(ip: str, scheme: str, host: str, prefix: str) -> bytes:
    return lines_of(forwarded_fields(ip, PublicName.of(scheme, host, "", prefix)))


def _is_for_upstream(call: Call, authorization: bytes) -> bool:
    """Return whether an ``Authorization`` header is meant for the upstream: it holds no credential of the gateway."""
    return call.credential is not None and not holds_credential(authorization, call.credential)


@lru_cache(maxsize=1024)
def _opened(secret_key: bytes, route_name: str, sealed: str) -> tuple[bytes, bytes]:
    try:
        credential = orjson.loads(unseal(secret_key, credential_purpose(route_name), sealed))
    except NotOpened:
        raise Refused(Reason.UPSTREAM_UNAVAILABLE, cause="upstream-credential") from None
    return credential["header"].encode(), credential["value"].encode()
