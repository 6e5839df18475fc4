"""Which hosts what an operator names may not be: link-local ones, where clouds keep their credentials."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address


def is_forbidden(host: str, allowed: Iterable[IPv4Network | IPv6Network] = ()) -> bool:
    """Say whether a host is a link-local address in any spelling, in a network that is not allowed.

    A name is no address: what it resolves to is looked at again when connecting.
    """
    address = _address(host.strip("[]"))
    if address is None:
        return False
    return address.is_link_local and not any(address in network for network in allowed)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """Read an address as the resolver would: ``0xa9fea9fe``, ``169.16689662`` and ``::ffff:169.254.1.1`` are some."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return IPv4Address(socket.inet_aton(host))
        except (OSError, ValueError):
            return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address
