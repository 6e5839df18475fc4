"""Routes change under open connections: what their next message has to pass, and whom it ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.call import Call
from gateway.connections.open import Connection
from gateway.policies.answers import PolicedExchange
from gateway.policies.ip_restriction import IpRestriction
from gateway.policies.jwt import Jwt
from gateway.policies.made import made_of
from gateway.policies.messages import Gate
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.endpoints import BUILTIN
from gateway.snapshot.picture import Route

if TYPE_CHECKING:
    from gateway.plane import Plane

OWN_DOORS = ("stream", "events", "mqtt")
GRACE_S = 1.0
"""A route that is made anew within this time was not deleted."""


def follow(plane: Plane) -> None:
    """Have open connections go by the policies that their routes name now, as soon as the snapshot says so.

    Messages are judged by the new policies from the next one on. Of what was decided at the handshake, where the caller
    comes from and what it holds is looked at again: a connection that ``ip-restriction`` or ``jwt`` would now keep out
    is closed. One whose route
    is deleted is closed; one whose route got another handler stays with what it was opened to. At the gateway's own
    doors routes come and go without closing any.
    """

    def changed(kinds: frozenset[str]) -> None:
        if "route" in kinds:
            _refresh(plane)

    plane.snapshot.on_change(changed)


def _refresh(plane: Plane) -> None:
    kept: dict[int, Route] = {}
    for connection in plane.connections:
        call = connection.call
        if _is_at_own_door(call):
            now = plane.snapshot.builtin(call.protocol) or (call.route and replace(call.route, policies=()))
            if now is not None and (call.route is None or now.policies != call.route.policies):
                call.route = now
                _apply(plane, connection)
            continue
        if call.route is None:
            continue
        now = plane.snapshot.route(call.route.name)
        if now is None:
            asyncio.get_running_loop().call_later(GRACE_S, _end_if_deleted, plane, connection)
        elif now.policies != call.route.policies:
            if now.handler != call.route.handler:
                now = kept.setdefault(id(call.route), replace(call.route, policies=now.policies))
            call.route = now
            _apply(plane, connection)


def _is_at_own_door(call: Call) -> bool:
    return call.handler in OWN_DOORS and (call.route is None or call.route.handler.get("type") == BUILTIN)


def _apply(plane: Plane, connection: Connection) -> None:
    call = connection.call
    try:
        _recheck(call)
    except Refused as refused:
        connection.close(refused)
        return
    if call.protocol is Protocol.WEBSOCKET:
        Gate(plane, call).attach()
    elif call.protocol is Protocol.SSE:
        PolicedExchange.join(plane, call)


def _recheck(call: Call) -> None:
    """Raise Refused where the caller's address, or what it has proved itself with, is not allowed any more."""
    for policy, _ in made_of(call.route).inward if call.route is not None else ():
        if isinstance(policy, IpRestriction | Jwt) and not policy.is_shadow:
            policy.inbound(call)


def _end_if_deleted(plane: Plane, connection: Connection) -> None:
    route = connection.call.route
    if route is not None and plane.snapshot.route(route.name) is None:
        connection.close(Refused(Reason.NOT_FOUND, "The route was deleted.", cause="route-deleted"))
