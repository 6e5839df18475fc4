"""The client of a request to Django: its address and scheme, which only a trusted proxy may report for another."""

from __future__ import annotations

from gateway.config import Network
from gateway.identity.client_address import client_ip, client_scheme
from gateway.protocols.socket import Message

REPORTS = frozenset({b"forwarded", b"x-real-ip", b"x-client-ip"})
REPORTS_PREFIX = b"x-forwarded-"
PORT_UNKNOWN = 0


def as_client_sent(scope: Message, trusted: tuple[Network, ...]) -> Message:
    """Return the scope with the client's own address and scheme, and without the headers that report them.

    Nothing behind this function can believe such a header, whoever sent it.
    """
    peer, port = scope.get("client") or ("", PORT_UNKNOWN)
    ip = client_ip(peer, scope["headers"], trusted)
    return {
        **scope,
        "client": (ip, port if ip == peer else PORT_UNKNOWN),
        "scheme": client_scheme(peer, scope["headers"], trusted) or scope.get("scheme", "http"),
        "headers": [header for header in scope["headers"] if not _is_report(header[0])],
    }


def _is_report(name: bytes) -> bool:
    return name in REPORTS or name.startswith(REPORTS_PREFIX)
