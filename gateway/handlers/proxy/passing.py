"""Passes messages of a proxied WebSocket on as they came: counted and charged by the read, without being unpacked.

That is possible while no policy looks at them, the other side reads, and the limits allow all of them at once. What
is left, such as fragments, control frames and a message that exceeds a limit, takes the way message by message of
:mod:`gateway.handlers.proxy.websocket`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.wire.websocket import count_whole

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.connections.open import Connection
    from gateway.plane import Plane
    from gateway.upstream.websocket import UpstreamSocket

PassOn = Callable[[bytes], int]
"""Takes whole messages at the start of what arrived, and returns how many bytes they had."""


def passing_up(plane: Plane, call: Call, connection: Connection, upstream: UpstreamSocket) -> PassOn:
    """Return what passes frames of the client to the upstream, with the client's masks."""
    charge_now, most, socket = plane.limiter.charge_now, plane.config.proxied_message_max_bytes, call.peer

    def pass_on(data: bytes) -> int:
        if socket.gate_in is not None or not upstream.is_writable:
            return 0
        count, size, end = count_whole(data, most, is_masked=True)
        if not count or not charge_now(call, messages_in=count, bytes_in=size):
            return 0
        connection.received(size, count)
        upstream.write_frames(data if end == len(data) else data[:end])
        return end

    return pass_on


def passing_down(plane: Plane, call: Call, connection: Connection, upstream: UpstreamSocket) -> PassOn:
    """Return what passes frames of the upstream to the client."""
    charge_now, most, socket = plane.limiter.charge_now, plane.config.proxied_message_max_bytes, call.peer

    def pass_on(data: bytes) -> int:
        if socket.is_compressing or not socket.can_write_now:
            return 0
        count, size, end = count_whole(data, most, is_masked=False)
        if not count or not charge_now(call, messages_out=count, bytes_out=size):
            return 0
        connection.sent(size, count)
        socket.write_now(data if end == len(data) else data[:end])
        return end

    return pass_on
