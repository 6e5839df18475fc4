"""Connections whose client has ended its sending side and may still read (RFC 9112 9.6), or is gone altogether.

Both look alike: a client that closes its socket ends its sending side too. Only what is sent to it brings the reset of
a client that is gone; and as nothing is read any more, a reset has to be looked for. Keepalive alone finds out late:
the kernel of the client confirms its probes for a minute after the socket was closed.
"""

from __future__ import annotations

import asyncio
import socket

INTERIM_AFTER_S = 10.0
"""How long a client waits for the head of its response before it gets an interim one, and then the next."""
PROBED_AFTER_S = 15
PROBED_EVERY_S = 15
UNANSWERED_MAX = 3


def probe(transport: asyncio.Transport) -> None:
    """Let the kernel probe the client: those of a closed socket are answered by a reset, a minute after it closed."""
    connected = transport.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBED_AFTER_S)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBED_EVERY_S)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, UNANSWERED_MAX)


def is_reset(transport: asyncio.Transport) -> bool:
    """Return whether the client has reset a connection that is not read now; the event loop does not report it."""
    connected = transport.get_extra_info("socket")
    return bool(connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
