"""MQTT control packets as values (MQTT 3.1.1 and 5.0, section 3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

Properties = dict[str, Any]


class Type(IntEnum):
    """Control packet types (2.1.2)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


V311, V5 = 4, 5
"""Protocol levels (3.1.2.2)."""


@dataclass(frozen=True, slots=True)
class Will:
    """A message published when a client goes away without DISCONNECT (3.1.2.5)."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Connect:
    """CONNECT (3.1)."""

    version: int
    client_id: str
    is_clean: bool
    keep_alive_s: int
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Publish:
    """PUBLISH (3.3)."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    is_duplicate: bool = False
    packet_id: int = 0
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ack:
    """PUBACK, PUBREC, PUBREL or PUBCOMP (3.4 to 3.7)."""

    type: Type
    packet_id: int
    code: int = 0


@dataclass(frozen=True, slots=True)
class RequestedFilter:
    """One topic filter of a SUBSCRIBE with its options (3.8.3.1)."""

    filter: str
    qos: int
    no_local: bool = False
    retain_handling: int = 0
    retain_as_published: bool = False


@dataclass(frozen=True, slots=True)
class Subscribe:
    """SUBSCRIBE (3.8)."""

    packet_id: int
    filters: tuple[RequestedFilter, ...]
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """UNSUBSCRIBE (3.10)."""

    packet_id: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """PINGREQ (3.12)."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """DISCONNECT (3.14)."""

    code: int = 0


@dataclass(frozen=True, slots=True)
class Auth:
    """AUTH (3.15)."""

    code: int = 0


@dataclass(frozen=True, slots=True)
class Malformed:
    """A packet that could not be parsed, with the reason code to close with. Nothing after it is parsed."""

    code: int
    detail: str


Packet = Connect | Publish | Ack | Subscribe | Unsubscribe | Ping | Disconnect | Auth | Malformed
