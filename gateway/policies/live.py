"""Routes change under open connections: which route each connection is under then, and which ones are closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.call import Call
from gateway.refusals import Reason, Refused
from gateway.snapshot.endpoints import BUILTIN

if TYPE_CHECKING:
    from gateway.connections.open import Connection
    from gateway.snapshot.picture import Route, Snapshot

BUILTIN_HANDLERS = ("stream", "events", "mqtt")
GRACE_S = 1.0
"""A route that is created again within this time does not count as deleted."""


class RouteUpdates:
    """Updates the routes of open connections when those of the snapshot change.

    A connection whose route is deleted is closed. One whose route got another handler stays with what it was opened
    to, under the new policies. At the gateway's own endpoints routes come and go without closing connections.
    """

    def __init__(
        self, snapshot: Snapshot, connections: Iterable[Connection], policies_changed: Callable[[Connection], None]
    ) -> None:
        self._snapshot = snapshot
        self._connections = connections
        self._policies_changed = policies_changed

    def snapshot_changed(self, kinds: frozenset[str]) -> None:
        """Go through all connections where routes are among the kinds of documents that have changed."""
        if "route" not in kinds:
            return
        replaced: dict[int, Route] = {}
        for connection in self._connections:
            call = connection.call
            if _is_at_builtin_endpoint(call):
                self._update_builtin(connection)
            elif call.route is not None:
                self._update(connection, call.route, replaced)

    def _update_builtin(self, connection: Connection) -> None:
        call = connection.call
        current = self._snapshot.builtin(call.protocol) or (call.route and replace(call.route, policies=()))
        if current is not None and (call.route is None or current.policies != call.route.policies):
            call.route = current
            self._policies_changed(connection)

    def _update(self, connection: Connection, route: Route, replaced: dict[int, Route]) -> None:
        current = self._snapshot.route(route.name)
        if current is None:
            asyncio.get_running_loop().call_later(GRACE_S, self._close_if_deleted, connection)
        elif current.policies != route.policies:
            if current.handler != route.handler:
                current = replaced.setdefault(id(route), replace(route, policies=current.policies))
            connection.call.route = current
            self._policies_changed(connection)

    def _close_if_deleted(self, connection: Connection) -> None:
        route = connection.call.route
        if route is not None and self._snapshot.route(route.name) is None:
            connection.close(Refused(Reason.NOT_FOUND, "The route was deleted.", cause="route-deleted"))


def _is_at_builtin_endpoint(call: Call) -> bool:
    return call.handler in BUILTIN_HANDLERS and (call.route is None or call.route.handler.get("type") == BUILTIN)
