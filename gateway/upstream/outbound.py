"""Addresses that the gateway does not connect to, by who named the host.

For an operator's URL (routes, key sets, connectors) those are the networks of cloud metadata services and the gateway's
own engines and operators' port; for a consumer's URL (webhooks, callbacks) every network that is not public.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

PARSED_MAX = 1024

Network = IPv4Network | IPv6Network
Endpoint = tuple[str, int]
"""Host and port of one of the gateway's own listeners or engines."""


@dataclass(frozen=True, slots=True)
class RefusedNetwork:
    """A network that is refused, and the document that reserves it."""

    network: Network
    source: str


def _refused(network: str, source: str) -> RefusedNetwork:
    return RefusedNetwork(ip_network(network), source)


METADATA = (
    _refused("169.254.0.0/16", "RFC 3927, link-local; metadata services of AWS, Azure, Google Cloud and others"),
    _refused("fe80::/10", "RFC 4291 2.5.6, link-local"),
    _refused("fd00:ec2::/32", "AWS EC2 user guide: instance metadata (fd00:ec2::254) and other local services"),
    _refused("fd20:ce::254/128", "Google Compute Engine documentation: metadata server over IPv6"),
    _refused("100.100.100.200/32", "Alibaba Cloud ECS documentation: instance metadata"),
    _refused("168.63.129.16/32", "Azure documentation: virtual public address of the platform (WireServer)"),
    _refused("192.0.0.192/32", "Oracle Cloud documentation: legacy metadata address"),
)
"""Never connected to, whoever names them, unless the operator allows the network."""

NOT_PUBLIC = (
    _refused("0.0.0.0/8", "RFC 1122 3.2.1.3, this network"),
    _refused("10.0.0.0/8", "RFC 1918, private"),
    _refused("100.64.0.0/10", "RFC 6598, shared by carriers"),
    _refused("127.0.0.0/8", "RFC 1122 3.2.1.3, loopback"),
    _refused("172.16.0.0/12", "RFC 1918, private"),
    _refused("192.0.0.0/24", "RFC 6890, IETF protocol assignments"),
    _refused("192.0.2.0/24", "RFC 5737, documentation"),
    _refused("192.88.99.0/24", "RFC 7526, former 6to4 relays"),
    _refused("192.168.0.0/16", "RFC 1918, private"),
    _refused("198.18.0.0/15", "RFC 2544, benchmarks"),
    _refused("198.51.100.0/24", "RFC 5737, documentation"),
    _refused("203.0.113.0/24", "RFC 5737, documentation"),
    _refused("224.0.0.0/4", "RFC 5771, multicast"),
    _refused("240.0.0.0/4", "RFC 1112 4, reserved; with the limited broadcast address"),
    _refused("::/128", "RFC 4291 2.5.2, unspecified"),
    _refused("::1/128", "RFC 4291 2.5.3, loopback"),
    _refused("64:ff9b:1::/48", "RFC 8215, local-use NAT64"),
    _refused("100::/64", "RFC 6666, discard-only"),
    _refused("2001::/23", "RFC 2928, IETF protocol assignments, except Teredo's embedded address"),
    _refused("2001:db8::/32", "RFC 3849, documentation"),
    _refused("3fff::/20", "RFC 9637, documentation"),
    _refused("5f00::/16", "RFC 9602, segment routing"),
    _refused("fc00::/7", "RFC 4193, unique local"),
    _refused("fec0::/10", "RFC 3879, former site-local"),
    _refused("ff00::/8", "RFC 4291 2.7, multicast"),
)
"""Refused for a consumer's URL besides :data:`METADATA`, unless the operator allows the network."""

_EMBEDDED_IN_LAST_32_BITS = (
    IPv6Network("::/96"),  # IPv4-compatible, RFC 4291 2.5.5.1
    IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated, RFC 2765 2.1
    IPv6Network("64:ff9b::/96"),  # NAT64, RFC 6052 2.1
)
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
"""The upper half of an ISATAP interface identifier (RFC 5214 6.1); an IPv4 address follows."""


@lru_cache(PARSED_MAX)
def is_address(host: str) -> bool:
    """Return whether a host is an address in its usual spelling, which needs no resolving."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def is_forbidden(host: str, allowed: Iterable[Network] = ()) -> bool:
    """Return whether a host is an address, in any spelling, that even an operator's URL may not name.

    A name is not an address: what it resolves to is checked when connecting.
    """
    address = _parse(host.strip("[]"))
    return address is not None and _is_refused(address, METADATA, tuple(allowed))


def is_inner(host: str, allowed: Iterable[Network] = ()) -> bool:
    """Return whether a host is an address, in any spelling, that a consumer's URL may not name.

    An IPv6 address that embeds an IPv4 address, as mapped, translated, NAT64, 6to4, Teredo and ISATAP ones do, is
    judged by that too. A name is not an address, as in :func:`is_forbidden`.
    """
    address = _parse(host.strip("[]"))
    if address is None:
        return False
    networks = tuple(allowed)
    if _is_refused(address, (*METADATA, *NOT_PUBLIC), networks):
        return True
    return any(not one.is_global and not _is_in(one, networks) for one in _embedded(address))


def is_own(host: str, port: int, own: Collection[Endpoint]) -> bool:
    """Return whether a host and port are one of the gateway's own endpoints; a wildcard listener owns its port."""
    if not own:
        return False
    address = _parse(host.strip("[]"))
    text = str(address) if address is not None else host.lower().removesuffix(".")
    if (text, port) in own:
        return True
    is_local = address is not None and (address.is_loopback or address.is_unspecified)
    return is_local and any(port == own_port and _is_local(own_host) for own_host, own_port in own)


def _is_local(host: str) -> bool:
    address = _parse(host)
    return host == "localhost" or (address is not None and (address.is_loopback or address.is_unspecified))


def _is_refused(
    address: IPv4Address | IPv6Address, table: Iterable[RefusedNetwork], allowed: tuple[Network, ...]
) -> bool:
    rows = tuple(table)
    return any(any(one in row.network for row in rows) and not _is_in(one, allowed) for one in _embedded(address))


def _is_in(address: IPv4Address | IPv6Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)


def _embedded(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address | IPv6Address]:
    """Yield the address and the IPv4 addresses that it leads to; a mere carrier of one is not yielded itself."""
    if isinstance(address, IPv4Address):
        yield address
        return
    last = IPv4Address(int(address) & 0xFFFF_FFFF)
    if int(address) > 1 and any(address in network for network in _EMBEDDED_IN_LAST_32_BITS):
        yield last
        return
    if address in _NAT64_LOCAL:
        yield last
    if (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        yield last
    if address.teredo is not None:
        yield from address.teredo
        return
    yield address
    if address.sixtofour is not None:
        yield address.sixtofour


def _parse(host: str) -> IPv4Address | IPv6Address | None:
    """Parse an address as resolvers do: ``0xa9fea9fe``, ``169.16689662``, ``::ffff:169.254.1.1`` and ``10.1.`` too."""
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
