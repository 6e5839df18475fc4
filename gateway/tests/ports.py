"""Free ports for what tests start."""

from __future__ import annotations

import random
import socket

_PORTS = range(10_000, 20_000)
"""Below the ports that systems give to outgoing connections: those of other tests take no port before it is used, nor
while a killed server is away. Above the product's own, and apart from the range of its engines."""


def free_port() -> int:
    """Return a port on which nobody listens on loopback."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port on 127.0.0.1")
