"""What an exchange uses of the HTTP connection that carries it."""

from __future__ import annotations

import asyncio
from typing import Any
from typing import Protocol as Interface


class HttpConnection(Interface):
    """One HTTP connection of the server."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    flow: Any
    """uvicorn's flow control: ``write_paused``, ``drain()``, ``resume_reading()``."""
    server_state: Any
    """uvicorn's state, with the headers of every response."""

    def on_response_complete(self) -> None:
        """Continue with the next pipelined request, or become idle."""

    def linger(self) -> None:
        """Close once the client has stopped sending, or has had time to read the response."""


def disconnect(cycle: Any) -> None:
    """Notify a cycle, of either kind, that its client is gone."""
    if cycle is not None and not cycle.response_complete:
        cycle.disconnected = True
        cycle.message_event.set()
