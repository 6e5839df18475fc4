"""Where a caller is: its IP address, the origin of its page, and whether its key may be used there."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from gateway.concurrency.short_cache import short_cache
from gateway.refusals import Reason, Refused
from gateway.snapshot.documents import Key


@short_cache(4_096)
def address(text: str) -> IPv4Address | IPv6Address:
    """Parse an IP address; an IPv4-mapped IPv6 address becomes IPv4. Raises ValueError."""
    ip = ip_address(text)
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


def plain(text: str) -> str:
    """Return an IP address as text, with an IPv4-mapped one, as seen by a listener on ``::``, as IPv4."""
    return str(address(text)) if text.startswith("::ffff:") else text


def require_place(key: Key, ip: str, origin: str | None) -> None:
    """Raise Refused if the key may not be used from this IP address, or by a page of this origin."""
    if key.allowed_ips and not any(address(ip) in network for network in key.allowed_ips):
        raise Refused(Reason.IP_NOT_ALLOWED)
    if key.allowed_origins and origin is not None and origin not in key.allowed_origins:
        raise Refused(Reason.ORIGIN_NOT_ALLOWED)


def is_foreign(origin: str | None, host: str) -> bool:
    """Return whether a page of another origin than ``host`` makes the request; ``null`` counts as another."""
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != host.lower()
    except ValueError:
        return True
