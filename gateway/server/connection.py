"""What an exchange uses of the HTTP connection that carries it."""

from __future__ import annotations

import asyncio
from typing import Any
from typing import Protocol as Interface

from gateway.listening.tcp_connections import TcpConnection


class HttpConnection(Interface):
    """One HTTP connection of the server."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    flow: Any
    """uvicorn's flow control: ``write_paused``, ``drain()``, ``resume_reading()``."""
    server_state: Any
    """uvicorn's state, with the headers of every response."""
    tcp: TcpConnection
    carried: Any
    """The call that is carried on it; None if there is none."""
    known: Any
    """The head of the last request that could be carried on it; None if there was none."""

    def on_response_complete(self) -> None:
        """Continue with the next pipelined request, or become idle."""

    def carried_to_its_end(self) -> None:
        """Become idle: the response of the carried call is written."""

    def go_on(self, exchange: Any) -> None:
        """Serve a call by a task that was carried so far."""

    def linger(self) -> None:
        """Close once the client has stopped sending, or has had time to read the response."""


def disconnect(cycle: Any) -> None:
    """Notify a cycle, of either kind, that its client is gone."""
    if cycle is not None and not cycle.response_complete:
        cycle.disconnected = True
        cycle.message_event.set()
