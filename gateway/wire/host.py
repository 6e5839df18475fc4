"""The value of ``Host`` (RFC 9110 7.2): a name or an address, and a port; nothing that two parsers read differently."""

from __future__ import annotations

import re
from ipaddress import IPv6Address

from gateway.concurrency.short_cache import short_cache

HOST_MAX_BYTES = 255
_HOST = re.compile(
    rb"(?:[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?"
)
_AUTHORITY = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")


@short_cache(1_024)
def is_host(value: bytes) -> bool:
    """Return whether a value is a host name, an IPv4 address or an IPv6 address in brackets, with a port or without."""
    match = _HOST.fullmatch(value)
    if match is None or len(value) > HOST_MAX_BYTES:
        return False
    if match["port"] is not None and not 0 < int(match["port"]) < 65536:
        return False
    return match["ipv6"] is None or _is_ipv6(match["ipv6"])


def has_valid_host(target: bytes) -> bool:
    """Return whether a request target names no host, or a valid one (its absolute form, RFC 9112 3.2.2)."""
    if target.startswith(b"/"):
        return True
    match = _AUTHORITY.match(target)
    return match is None or is_host(match[1])


def _is_ipv6(text: bytes) -> bool:
    try:
        IPv6Address(text.decode("ascii"))
    except ValueError:
        return False
    return True
