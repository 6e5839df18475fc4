"""The address of a client: from the right, the first in ``X-Forwarded-For`` that is no trusted proxy's."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gateway.config import Network
from gateway.identity.places import address, plain
from gateway.wire.header_fields import Headers

IPV4_BITS = 32
IPV6_BITS = 64
"""The smallest network that a site gets: its addresses share one budget."""
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.%]+)\](?::\d{1,5})?|(\d{1,3}(?:\.\d{1,3}){3}):\d{1,5}")


def client_ip(peer: str, headers: Headers, trusted: tuple[Network, ...]) -> str:
    """Return the address of the client whose request the peer sent, or passed on if it is a trusted proxy.

    An entry that is not an address ends the search at the proxy that reported it.
    """
    ip = plain(peer)
    if not trusted or not is_trusted(ip, trusted):
        return ip
    forwarded = b",".join(value for name, value in headers if name == b"x-forwarded-for").decode("latin-1")
    while forwarded and is_trusted(ip, trusted):
        forwarded, _, entry = forwarded.rpartition(",")
        try:
            ip = str(address(_without_port(entry.strip())))
        except ValueError:
            return ip
    return ip


def client_scheme(peer: str, headers: Headers, trusted: tuple[Network, ...]) -> str | None:
    """Return the scheme that the client used, as a trusted proxy reported it last in ``X-Forwarded-Proto``, or None."""
    if not is_trusted(plain(peer), trusted):
        return None
    reported = [value for name, value in headers if name == b"x-forwarded-proto"]
    scheme = reported[-1].rpartition(b",")[2].strip().lower() if reported else b""
    return scheme.decode() if scheme in (b"http", b"https") else None


def is_trusted(ip: str, trusted: Iterable[Network]) -> bool:
    """Return whether an address is that of a trusted proxy."""
    try:
        return any(address(ip) in network for network in trusted)
    except ValueError:
        return False


def network_of(ip: str, ipv4_bits: int = IPV4_BITS, ipv6_bits: int = IPV6_BITS) -> str:
    """Return the network that an address is counted as: by default itself, and for IPv6 its /64."""
    try:
        parsed = address(ip)
    except ValueError:
        return "invalid"
    bits = ipv4_bits if parsed.version == 4 else ipv6_bits
    return f"{parsed.version}:{int(parsed) >> parsed.max_prefixlen - bits:x}"


def _without_port(entry: str) -> str:
    """Return an entry without the port that some proxies add."""
    match = _WITH_PORT.fullmatch(entry)
    return entry if match is None else match[1] or match[2]
