"""Meter: count what became of a call, exactly once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gateway.call import Call, Reply

if TYPE_CHECKING:
    from gateway.plane import Plane


def meter(plane: Plane, call: Call, reply: Reply) -> None:
    """Count one call, and close its connection's account where it had one. Never raises, never waits."""
    if call.connection is not None:
        closed = plane.connections.closed(call.connection)
        if closed is not None:
            plane.usage.connection_closed(closed, reply)
    else:
        plane.usage.call_ended(call, reply, (time.monotonic() - call.started_at) * 1000)
