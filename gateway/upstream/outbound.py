"""Which hosts we do not call: of those that an operator names, link-local ones, where clouds keep their credentials.

Of those that a consumer names, every inner one.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_NAT64 = IPv6Network("64:ff9b::/96")
_V4_COMPATIBLE = IPv6Network("::/96")


def is_forbidden(host: str, allowed: Iterable[IPv4Network | IPv6Network] = ()) -> bool:
    """Say whether a host is a link-local address in any spelling, in a network that is not allowed.

    A name is no address: what it resolves to is looked at again when connecting.
    """
    address = _address(host.strip("[]"))
    if address is None:
        return False
    return address.is_link_local and not any(address in network for network in allowed)


def is_inner(host: str, allowed: Iterable[IPv4Network | IPv6Network] = ()) -> bool:
    """Say whether a host is an address, in any spelling, that is not of the public network nor of one that is allowed.

    Loopback, private, link-local, shared, reserved and multicast addresses are inner, and so are IPv6 addresses that
    carry an inner IPv4 address: mapped, compatible, 6to4, Teredo, NAT64.
    A name is no address, as in :func:`is_forbidden`.
    """
    address = _address(host.strip("[]"))
    if address is None:
        return False
    networks = tuple(allowed)
    return any(
        (not one.is_global or one.is_multicast) and not any(one in network for network in networks)
        for one in _carried(address)
    )


def _carried(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address | IPv6Address]:
    """Give the address, and the IPv4 addresses that it would lead to; where it is but a vessel, those alone."""
    if isinstance(address, IPv4Address):
        yield address
        return
    if address in _NAT64 or (address in _V4_COMPATIBLE and int(address) > 1):
        yield IPv4Address(int(address) & 0xFFFF_FFFF)
        return
    yield address
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """Read an address as resolvers do: ``0xa9fea9fe``, ``169.16689662``, ``::ffff:169.254.1.1``, ``10.1.`` are some."""
    host = host.removesuffix(".")
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
