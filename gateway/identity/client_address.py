"""The address of a client: from the right, the first in ``X-Forwarded-For`` that is no trusted proxy's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.config import Network
from gateway.identity.places import address, plain
from gateway.wire.header_fields import Headers
from gateway.wire.host import is_host

_PREFIX = re.compile(rb"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)+")
IPV4_BITS = 32
IPV6_BITS = 64
"""The smallest network that a site gets: its addresses share one budget."""
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.%]+)\](?::\d{1,5})?|(\d{1,3}(?:\.\d{1,3}){3}):\d{1,5}")


@dataclass(frozen=True, slots=True)
class Front:
    """What a trusted proxy in front reports of the request that it received; "" where it reports nothing."""

    scheme: str = ""
    host: str = ""
    port: str = ""
    prefix: str = ""


UNKNOWN_FRONT = Front()


def front_of(peer: str, headers: Headers, trusted: tuple[Network, ...]) -> Front | None:
    """Return what the peer reports in ``X-Forwarded-*`` if it is a trusted proxy, or None.

    Of several values the last is its own (as of ``X-Forwarded-For``); a malformed value is ignored.
    """
    if not trusted or not is_trusted(plain(peer), trusted):
        return None
    host, port, prefix = (
        _last(headers, name) for name in (b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix")
    )
    prefix = prefix.rstrip(b"/")
    return Front(
        _scheme(headers) or "",
        host.decode() if is_host(host) else "",
        port.decode() if port.isdigit() and 0 < int(port) < 65536 else "",
        prefix.decode() if _PREFIX.fullmatch(prefix) else "",
    )


def _last(headers: Headers, name: bytes) -> bytes:
    values = [value for key, value in headers if key == name]
    return values[-1].rpartition(b",")[2].strip() if values else b""


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
    return _scheme(headers)


def _scheme(headers: Headers) -> str | None:
    scheme = _last(headers, b"x-forwarded-proto").lower()
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
