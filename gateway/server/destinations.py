"""Where plain calls go: what their method and target decide, whoever makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from gateway.call import Call
from gateway.concurrency.room import make_room
from gateway.credentials.api_keys import may_hold_credential
from gateway.handlers.proxy.forwarding import forwarding_of
from gateway.protocol import Protocol
from gateway.server.heads import has_empty_query, target_parts
from gateway.snapshot.documents import Route, Timeouts
from gateway.snapshot.encoded_slashes import match_raw
from gateway.snapshot.paths import normalised
from gateway.upstream.origin import Origin

if TYPE_CHECKING:
    from gateway.plane import Plane

DESTINATIONS_KEPT = 4096
TARGET_MAX_BYTES = 255
"""Longer targets are judged each time: what is kept takes some 6 MiB at most."""


class Destination(NamedTuple):
    """Where the calls with one method and target go."""

    route: Route
    address: str
    raw_path: bytes
    query: bytes
    has_empty_query: bool
    parameters: Mapping[str, str]
    request_line: bytes
    """What the upstream's head begins with."""
    origin: Origin
    timeouts: Timeouts
    variant: bytes
    """What else of its heads differs from others of the route: its path, if the prefix of the route has parameters."""


class Destinations:
    """The destinations of one process, kept as long as the snapshot is the same."""

    def __init__(self, is_elsewhere: Callable[[bytes], bool]) -> None:
        self._is_elsewhere = is_elsewhere
        self._kept: dict[tuple[bytes, bytes], Destination | None] = {}
        """None: such a request has to take the path."""

    def clear(self) -> None:
        """Forget all: the snapshot has changed."""
        self._kept.clear()

    def of(self, plane: Plane, method: bytes, target: bytes) -> Destination | None:
        """Return the destination of a request, or None if it has to take the path. Raises Refused."""
        try:
            return self._kept[method, target]
        except KeyError:
            destination = self._find(plane, method, target)
        if len(target) <= TARGET_MAX_BYTES:
            make_room(self._kept, DESTINATIONS_KEPT)
            self._kept[method, target] = destination
        return destination

    def _find(self, plane: Plane, method: bytes, target: bytes) -> Destination | None:
        raw_path, query = target_parts(target)
        if self._is_elsewhere(raw_path) or may_hold_credential(query):
            return None
        address = normalised(raw_path)
        match = match_raw(plane.snapshot, Protocol.HTTP, method.decode(), raw_path=raw_path, path=address)
        route = match.route
        if route is None or match.handler != "upstream" or match.protocol is not Protocol.HTTP or match.is_anonymous:
            return None
        call = Call(
            protocol=Protocol.HTTP,
            address=address,
            ip="",
            method=method.decode(),
            raw_path=raw_path,
            query=query,
            has_empty_query=has_empty_query(target),
            route=route,
            parameters=match.parameters,
        )
        forwarding = forwarding_of(route)
        return Destination(
            route=route,
            address=address,
            raw_path=raw_path,
            query=query,
            has_empty_query=call.has_empty_query,
            parameters=match.parameters,
            request_line=forwarding.request_line(call),
            origin=forwarding.target.origin,
            timeouts=forwarding.timeouts_for(call, plane.config),
            variant=raw_path if forwarding.prefix is None else b"",
        )
