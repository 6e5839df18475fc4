"""The PROXY protocol, version 2: the header by which a proxy reports the connection that it passes on.

By HAProxy's specification of 2020/03/05, 2.2. Only stream connections occur here, so datagrams are malformed.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
START_BYTES = 16
"""The fixed part of a header: signature, version and command, family, length of the rest."""
REST_MAX_BYTES = 1024
"""The longest rest that is read. The addresses take at most 216 bytes; extensions (TLVs) follow them."""
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
"""The header of a connection that the proxy made for itself, such as a health check."""
_VERSION = 0x2
_LOCAL, _PROXY = 0x0, 0x1
_UNSPECIFIED, _TCP4, _TCP6, _UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
_ADDRESS_BYTES = {_UNSPECIFIED: 0, _TCP4: 12, _TCP6: 36, _UNIX_STREAM: 216}

Source = tuple[str, int]
"""IP address and port of the client that the proxy accepted."""


class MalformedProxyHeader(ValueError):
    """The bytes are no header of this version, or a longer one than is read."""


def rest_bytes(start: bytes) -> int:
    """Return how many bytes follow the first ``START_BYTES`` of a header. Raises MalformedProxyHeader."""
    if len(start) != START_BYTES or not start.startswith(SIGNATURE):
        raise MalformedProxyHeader("the signature is missing")
    version, command = start[12] >> 4, start[12] & 0xF
    if version != _VERSION or command not in (_LOCAL, _PROXY):
        raise MalformedProxyHeader("the version or the command is unknown")
    length = int.from_bytes(start[14:16])
    if length > REST_MAX_BYTES:
        raise MalformedProxyHeader(f"it is longer than {REST_MAX_BYTES} bytes")
    if command == _PROXY and length < _ADDRESS_BYTES.get(start[13], REST_MAX_BYTES + 1):
        raise MalformedProxyHeader("the family is unknown, or its addresses are incomplete")
    return length


def source(start: bytes, rest: bytes) -> Source | None:
    """Return the reported client, or None if the proxy reports none: then the connection's own address is the client's.

    Extensions are skipped. ``start`` was accepted by :func:`rest_bytes`, and ``rest`` has that length.
    """
    family = start[13]
    if start[12] & 0xF == _LOCAL or family not in (_TCP4, _TCP6):
        return None
    if family == _TCP4:
        return str(IPv4Address(rest[:4])), int.from_bytes(rest[8:10])
    address = IPv6Address(rest[:16])
    return str(address.ipv4_mapped or address), int.from_bytes(rest[32:34])
