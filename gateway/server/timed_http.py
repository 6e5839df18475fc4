"""uvicorn's HTTP protocol with deadlines, which a sweep over all connections enforces."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.listening.tcp_connections import TcpConnection
from gateway.refusals import Reason, Refused
from gateway.server.exchange import DirectExchange
from gateway.server.half_closed import INTERIM_AFTER_S, is_reset
from gateway.server.pace import Pace
from gateway.server.site import Site


class TimedHttp(HttpToolsProtocol):
    """An HTTP connection that is closed if its client is too slow, idle for too long, or gone."""

    # Not in the dictionary that uvicorn's attributes are in: one with so many names takes a kilobyte more.
    __slots__ = (
        "_body_bytes", "_is_half_closed", "_is_refused", "_lingers_until", "_pace", "_probed_at", "_running", "_unsent",
        "body_began_at", "head_began_at", "idle_since", "site", "tcp",
    )  # fmt: skip
    site: Site
    tcp: TcpConnection
    head_began_at: float | None
    body_began_at: float | None
    idle_since: float | None
    """Since when a used connection has been idle."""
    _pace: Pace
    _body_bytes: int
    _is_refused: bool
    _is_half_closed: bool
    _probed_at: float
    """When a client that has ended its sending side was last sent something to find out whether it is still there."""
    _running: Any
    """The cycle that is being answered; ``cycle`` is the one that is being read."""
    _lingers_until: float | None
    _unsent: tuple[int, float]
    """The size of the write buffer, and since when it has been so."""

    def sweep(self, now: float) -> None:
        """Close the connection if its head or body takes too long, or if its response is not read."""
        is_unread = self._is_half_closed or self.flow.read_paused
        if (self._lingers_until is not None and now > self._lingers_until) or (is_unread and is_reset(self.transport)):
            self.transport.abort()
        elif self.flow.write_paused or self.transport.is_closing():
            self._sweep_unread(now)
        elif self._is_refused:
            return
        elif self.idle_since is not None:
            self._sweep_idle(now - self.idle_since)
        else:
            if self._is_half_closed and now - self._probed_at > INTERIM_AFTER_S:
                self._probed_at = now
                if isinstance(self._running, DirectExchange):
                    self._running.probe_early()
            self._sweep_request(now)

    def _sweep_idle(self, idle_s: float) -> None:
        is_kept = self.tcp.is_proved or self.tcp.is_of_proxy
        if idle_s > (self.site.bounds.keep_alive_s if is_kept else self.site.bounds.anonymous_keep_alive_s):
            self.transport.close()

    def _sweep_request(self, now: float) -> None:
        """Refuse a head that is not complete in time, and a body that arrives too slowly."""
        bounds = self.site.bounds
        if self.head_began_at is not None and now - self.head_began_at > bounds.head_timeout_s:
            self._refuse(Refused(Reason.IDLE, f"The head was not complete within {bounds.head_timeout_s:g} s."))
        elif self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            # Both sides may wait for each other: the deadlines of the response apply.
            return
        elif self.body_began_at is not None and self._pace.is_late(now, self._body_bytes, self.flow.read_paused):
            self._refuse(Refused(Reason.IDLE, "The request's body arrives too slowly."))

    def _sweep_unread(self, now: float) -> None:
        """Disconnect a client that does not read its response."""
        size, since = self._unsent
        waiting = self.transport.get_write_buffer_size()
        if waiting == 0 or waiting != size:
            self._unsent = (waiting, now)
        elif now - since > self.site.bounds.send_timeout_s:
            self.transport.abort()

    def _refuse(self, refused: Refused) -> None:
        raise NotImplementedError
