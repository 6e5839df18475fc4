"""Meter: count what became of a call, exactly once."""

from __future__ import annotations

import time

from gateway.call import Call, Reply
from gateway.connections.open import Connections
from gateway.metering.usage import Usage


class Meter:
    """Counts calls in the usage of this process, and closes the accounts of connections."""

    def __init__(self, connections: Connections, usage: Usage) -> None:
        self._connections = connections
        self._usage = usage

    def count(self, call: Call, reply: Reply) -> None:
        """Count one call, and close the account of its connection if it had one. Never raises, never waits."""
        if call.connection is None:
            self._usage.call_ended(call, reply, (time.monotonic() - call.started_at) * 1000)
            return
        closed = self._connections.closed(call.connection)
        if closed is not None:
            self._usage.connection_closed(closed, reply)
