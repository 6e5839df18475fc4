"""What is known of a call before it arrives again: who makes it, where it goes and what it spends from.

A plan is made by the steps of the path (:mod:`gateway.pipeline`) and holds as long as the snapshot is the same. It is
kept by the route and method, the caller's address, the lines that name the gateway, and a keyed hash of the credential,
so that it is found again however the targets of the calls differ (:mod:`.destinations`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from gateway.call import Call
from gateway.concurrency.room import make_room
from gateway.handlers.proxy.forwarding import forwarding_of
from gateway.handlers.proxy.heads import request_head
from gateway.handlers.proxy.http import IDEMPOTENT
from gateway.handlers.proxy.lines import field_of
from gateway.identity.places import require_place
from gateway.identity.rights import lacking
from gateway.protocol import Protocol
from gateway.protocols.http import accepted, prepare
from gateway.server.destinations import Destination, Destinations
from gateway.server.heads import target_parts
from gateway.snapshot.documents import Metric
from gateway.snapshot.principal import Principal

if TYPE_CHECKING:
    from gateway.metering.labels import Label
    from gateway.plane import Plane
    from gateway.snapshot.picture import Snapshot

PLANS_KEPT = 16_384
NAMING_MAX_BYTES = 512
"""Requests that say more about how they came take the path: a plan takes some 2 KiB at most, all together 40 MiB."""
_TOKENS = frozenset({Metric.TOKENS_IN, Metric.TOKENS_OUT})


class Request(NamedTuple):
    """What of a request decides how it is carried."""

    ip: str
    method: bytes
    target: bytes
    naming: tuple[bytes, ...]
    """The lines that say how the caller reached the gateway, and from where: the host, what a proxy in front reports,
    and the origin."""
    credential: bytes
    """The line that holds the credential, or its keyed hash."""


class Plan(NamedTuple):
    """How the calls of a caller to a route are carried, whatever their targets, other headers and bodies."""

    revision: int
    """Of the snapshot that it was made from."""
    call: Call
    """The call as it is once it was authenticated; that of the plan, not of one request."""
    principal: Principal
    may_repeat: bool
    host: bytes
    """The second line of the head for the upstream."""
    rest: bytes
    """The end of that head: the caller, its names for the gateway, and ``Via``."""
    label: Label
    changes_requests: bool
    """A policy, the upstream's credential or the caller's origin decides about other lines of the request."""
    changes_responses: bool
    """A policy decides about lines of the response."""

    def holds(self, snapshot: Snapshot) -> bool:
        """Return whether its caller would be admitted now as then."""
        expires_at = self.principal.expires_at
        return self.revision == snapshot.revision and (expires_at is None or expires_at > time.time())


class Plans:
    """The plans of one process."""

    def __init__(self, is_elsewhere: Callable[[bytes], bool]) -> None:
        self._destinations = Destinations(is_elsewhere)
        self._plans: dict[tuple[object, ...], Plan | None] = {}
        """None: such a request has to take the path."""
        self._revision = -1
        self._hash_key = secrets.token_bytes(32)

    def __len__(self) -> int:
        return len(self._plans)

    def hashed(self, secret: bytes) -> bytes:
        """Return a keyed hash, which may be kept in place of what holds a secret."""
        return blake2b(secret, digest_size=16, key=self._hash_key).digest()

    def of(self, plane: Plane, request: Request) -> tuple[Plan, Destination] | None:
        """Return the plan of a request and where it goes, or None if it has to take the path.

        Raises Refused, which the path decides.
        """
        if self._revision != plane.snapshot.revision:
            self._plans.clear()
            self._destinations.clear()
            self._revision = plane.snapshot.revision
        destination = self._destinations.of(plane, request.method, request.target)
        if destination is None:
            return None
        kept_by = (
            destination.route.name, destination.variant, request.ip, request.method, request.naming,
            self.hashed(request.credential),
        )  # fmt: skip
        try:
            plan = self._plans[kept_by]
        except KeyError:
            plan = self._make(plane, request, kept_by)
        return (plan, destination) if plan is not None and plan.holds(plane.snapshot) else None

    def _make(self, plane: Plane, request: Request, kept_by: tuple[object, ...]) -> Plan | None:
        if sum(map(len, request.naming)) > NAMING_MAX_BYTES:
            return None
        call = _call_of(plane, request)
        prepare(plane, call)
        if call.credential is None:
            return None
        call.principal = plane.authenticator.proved(plane.authenticator.proof_id(call.credential))
        if call.principal is None:
            # Nothing is kept for callers that are not proved.
            return None
        make_room(self._plans, PLANS_KEPT)
        plan = self._plans[kept_by] = _plan(plane, call) if _is_plain(plane, call) else None
        return plan


def _call_of(plane: Plane, request: Request) -> Call:
    path, query = target_parts(request.target)
    headers = [field_of(line) for line in (*request.naming, request.credential)]
    return accepted(plane, Protocol.HTTP, request.method.decode(), path, query, headers, request.ip)


def _is_plain(plane: Plane, call: Call) -> bool:
    """Return whether nothing must be awaited for a call, if its caller's limits allow it. Raises Refused."""
    route, principal = call.route, call.caller
    is_plain = (
        route is not None
        and not plane.config.trace_start
        and not (route.idempotency and call.method == "POST")
        and plane.policies.of(route).reads_heads_alone
        and not any(_needs_the_path(limit.metric, limit.scope, call.method) for limit in principal.limits)
        and lacking(principal, call.rights, []) is None
    )
    if is_plain:
        key = plane.snapshot.key(principal.key) if principal.token is None else None
        if key is not None:
            require_place(key, call.ip, call.origin)
        # They may change it, and do so for each call.
        plane.policies.inbound(replace(call))
    return is_plain


def _needs_the_path(metric: Metric, scope: str, method: str) -> bool:
    """Return whether a limit counts tokens of models, or each connection apart."""
    return scope == "connection" or (metric in _TOKENS and method == "POST")


def _plan(plane: Plane, call: Call) -> Plan:
    assert call.route is not None, "it is for an upstream"
    forwarding, policies = forwarding_of(call.route), plane.policies.of(call.route)
    head = request_head(call, forwarding, plane.config, plane.upstreams.via)
    host_begins = head.index(b"\r\n") + 2
    host_ends = head.index(b"\r\n", host_begins) + 2
    return Plan(
        revision=plane.snapshot.revision,
        call=call,
        principal=call.caller,
        may_repeat=call.method in IDEMPOTENT,
        host=head[host_begins:host_ends],
        rest=head[host_ends:],
        label=plane.usage.label_of(call),
        changes_requests=forwarding.has_credentials or call.origin is not None or not policies.is_of_caller,
        changes_responses=bool(policies.outward),
    )
