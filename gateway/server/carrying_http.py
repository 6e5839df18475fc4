"""uvicorn's HTTP protocol with plain calls carried by callbacks (see :mod:`.carrier`)."""

from __future__ import annotations

import time
from typing import Any

from gateway.server.carrier import CarriedCall, Carrier, Known
from gateway.server.exchange import DirectExchange
from gateway.server.timed_http import TimedHttp


class CarryingHttp(TimedHttp):
    """An HTTP connection that carries the requests which arrive whole while it is idle, one at a time."""

    __slots__ = ("_received", "carried", "carrier", "known")
    carrier: Carrier | None
    carried: CarriedCall | None
    known: Known | None
    _received: int

    def _carries(self, data: bytes) -> bool:
        """Carry the request that these bytes are, if it can be carried."""
        if self.carried is not None:
            # The next request arrives before the response, as pipelining allows: a queue is the path's matter.
            self.hand_over()
        elif self.carrier is not None and self._is_between_requests:
            self.carried = self.carrier.begin(self, data)  # type: ignore[arg-type]  # its subclass has the rest
            if self.carried is not None:
                self.idle_since = self.head_began_at = None
                return True
        return False

    @property
    def _is_between_requests(self) -> bool:
        is_new = self._running is None and not self._received
        return is_new or self.idle_since is not None

    def carried_to_its_end(self) -> None:
        """Become idle: the response of the carried call is written."""
        self.server_state.total_requests += 1
        self.idle_since = time.monotonic()
        self.tcp.idle()

    def hand_over(self) -> None:
        """Let a task go on with the call that is carried, if there is one."""
        if self.carried is not None:
            self.carried.hand_over()

    def go_on(self, exchange: DirectExchange) -> None:
        """Serve a call by a task that was carried so far."""
        cycle: Any = exchange
        self.cycle = cycle
        self._start_asgi_task(cycle, self.app)
