"""What clients of the product's own, such as the check at the start, send first to its listeners."""

from __future__ import annotations

from apimgmt import env
from gateway.identity.client_address import is_trusted
from gateway.wire.proxy_header import LOCAL


def first_bytes(ip: str) -> bytes:
    """Return a PROXY header if clients at this address must send one (``PROXY_PROTOCOL_FROM``), else nothing."""
    return LOCAL if is_trusted(ip, env.networks("PROXY_PROTOCOL_FROM")) else b""
