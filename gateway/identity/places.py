"""Where a caller is: its network address, the page that it calls from, and whether its key may be used there."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from gateway.call import Call
from gateway.refusals import Reason, Refused
from gateway.snapshot.documents import Key


@lru_cache(maxsize=4096)
def address(text: str) -> IPv4Address | IPv6Address:
    """Read an address; one of IPv4 that came as IPv6 is one of IPv4. Raises ValueError."""
    ip = ip_address(text)
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


def plain(text: str) -> str:
    """Give an address as text: one of IPv4 that came as IPv6, as it does where we listen on ``::``, as one of IPv4."""
    return str(address(text)) if text.startswith("::ffff:") else text


def require_place(key: Key, call: Call) -> None:
    """Raise Refused where the key may not be used from the caller's address, or from its page."""
    if key.allowed_ips and not any(address(call.ip) in network for network in key.allowed_ips):
        raise Refused(Reason.IP_NOT_ALLOWED)
    if key.allowed_origins and call.origin is not None and call.origin not in key.allowed_origins:
        raise Refused(Reason.ORIGIN_NOT_ALLOWED)


def is_foreign(call: Call) -> bool:
    """Say whether a page of another origin than ours makes this call; ``null`` is another, too."""
    if call.origin is None:
        return False
    try:
        return urlsplit(call.origin).netloc.lower() != (call.header(b"host") or "").lower()
    except ValueError:
        return True
