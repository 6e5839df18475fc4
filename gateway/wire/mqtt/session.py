"""The state of an MQTT session, without sockets or clocks: packet ids, messages in flight, topic aliases."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import count

from gateway.wire.mqtt.packets import V5, Connect, Publish
from gateway.wire.mqtt.types import BAD_ALIAS, PROTOCOL_ERROR, PacketError

IN_FLIGHT_MAX = 100
"""Unacknowledged QoS 1 events to a client before further ones are held (its Receive Maximum may be lower)."""
RECEIVE_MAX = 1024
"""QoS 2 publishes of a client that may await PUBREL (3.2.2.3.3)."""
RECEIVE_MAX_EXCEEDED = 0x93
TOPIC_ALIAS_MAX = 20
SUBSCRIPTIONS_MAX = 200
CLIENT_ID_MAX_CHARS = 256
QOS_GRANTED_MAX = 1
KEEP_ALIVE_FACTOR = 1.5
PACKET_ID_MAX = 65_535

Parts = tuple[bytes, bytes, bytes]
"""The encoded parts of an event that all its readers share (see ``codec.shared_parts``)."""
Renew = Callable[[], Parts | None]
"""Returns the parts of an event as they are to be sent now; None if it has expired."""


@dataclass(slots=True)
class Session:
    """The session of one connection, discarded with it: CONNACK never sets Session Present."""

    connect: Connect
    client_id: str = ""
    held: deque[tuple[Parts, bool, Renew | None]] = field(default_factory=deque)
    """QoS 1 events with their retain flag, to be sent once the client has acknowledged earlier ones."""
    held_bytes: int = 0
    _received: dict[int, bool] = field(default_factory=dict)
    _in_flight: set[int] = field(default_factory=set)
    _aliases: dict[int, str] = field(default_factory=dict)
    _ids: count[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.client_id = self.connect.client_id or f"auto-{secrets.token_hex(8)}"

    @property
    def version(self) -> int:
        """Protocol level."""
        return self.connect.version

    @property
    def in_flight_max(self) -> int:
        """How many QoS 1 events may be unacknowledged."""
        return min(IN_FLIGHT_MAX, int(self.connect.properties.get("receive_maximum", IN_FLIGHT_MAX)))

    @property
    def silence_max_s(self) -> float | None:
        """Silence after which the client is disconnected (3.1.2.10); None without a keep alive."""
        return self.connect.keep_alive_s * KEEP_ALIVE_FACTOR if self.connect.keep_alive_s else None

    def topic_of(self, packet: Publish) -> str:
        """Return the topic, resolving a topic alias (3.3.2.3.4). Raises PacketError for an invalid alias."""
        alias = packet.properties.get("topic_alias")
        if alias is None:
            return packet.topic
        if alias > TOPIC_ALIAS_MAX:
            raise PacketError(f"a topic alias is above {TOPIC_ALIAS_MAX}", BAD_ALIAS)
        if packet.topic:
            self._aliases[alias] = packet.topic
        elif alias not in self._aliases:
            raise PacketError("a topic alias is used before it is set", PROTOCOL_ERROR)
        return self._aliases[alias]

    # QoS 2 in: a packet id is in use from PUBLISH to PUBREL, and a duplicate is not stored again (4.3.3)

    @property
    def is_lasting(self) -> bool:
        """Whether the client may continue its session on another connection (3.1.2.4, 3.1.2.11.2)."""
        return not self.connect.is_clean or bool(self.connect.properties.get("session_expiry"))

    @property
    def received(self) -> Collection[int]:
        """The packet ids of the QoS 2 publishes that await their PUBREL."""
        return self._received

    def begin_receiving(self, packet_id: int) -> bool:
        """Register the packet id of a QoS 2 publish and return whether it is new; False is a duplicate.

        Raises PacketError if more than ``RECEIVE_MAX`` await PUBREL.
        """
        if packet_id in self._received:
            return False
        if len(self._received) >= RECEIVE_MAX:
            raise PacketError(f"more than {RECEIVE_MAX} QoS 2 publishes await PUBREL", RECEIVE_MAX_EXCEEDED)
        self._received[packet_id] = False
        return True

    def is_stored(self, packet_id: int) -> bool:
        """Return whether the QoS 2 publish of this packet id was stored."""
        return self._received.get(packet_id, False)

    def mark_stored(self, packet_id: int) -> None:
        """Record that the QoS 2 publish of this packet id was stored: its duplicates are acknowledged at once."""
        if packet_id in self._received:
            self._received[packet_id] = True

    def release(self, packet_id: int) -> bool:
        """Release a packet id, at PUBREL or when its publish was refused; return whether it was in use."""
        return self._received.pop(packet_id, None) is not None

    # QoS 1 out

    def can_send(self) -> bool:
        """Return whether another QoS 1 event may be sent now."""
        return len(self._in_flight) < self.in_flight_max

    def next_id(self) -> int:
        """Return a packet id that is not in use, and register it as in flight."""
        while True:
            packet_id = next(self._ids) % PACKET_ID_MAX + 1
            if packet_id not in self._in_flight:
                self._in_flight.add(packet_id)
                return packet_id

    def acknowledge(self, packet_id: int) -> None:
        """Release the packet id of a QoS 1 event; one that is not in use is ignored."""
        self._in_flight.discard(packet_id)

    def hold(self, parts: Parts, *, retain: bool = False, renew: Renew | None = None) -> None:
        """Queue a QoS 1 event until :meth:`next_held` may return it, renewed if what is sent depends on the time."""
        self.held.append((parts, retain, renew))
        self.held_bytes += sum(map(len, parts))

    def next_held(self) -> tuple[Parts, bool] | None:
        """Return the oldest held event if it may be sent now."""
        while self.held and self.can_send():
            parts, retain, renew = self.held.popleft()
            self.held_bytes -= sum(map(len, parts))
            current = parts if renew is None else renew()
            if current is not None:
                return current, retain
        return None

    def limits(self, packet_max_bytes: int) -> dict[str, object]:
        """Return the CONNACK properties that state the server's limits (3.2.2.3); none on 3.1.1."""
        if self.version != V5:
            return {}
        properties: dict[str, object] = {
            "session_expiry": 0,
            "receive_maximum": RECEIVE_MAX,
            "maximum_packet_size": packet_max_bytes,
            "topic_alias_maximum": TOPIC_ALIAS_MAX,
            "shared_available": 0,
            "identifiers_available": 0,
        }
        if not self.connect.client_id:
            properties["assigned_client_id"] = self.client_id
        return properties


class ConnectedClients:
    """The connections of this process by owner and client id: a client that connects again ends the older one.

    An owner is a credential of a consumer: clients of different owners never share an id.
    """

    def __init__(self) -> None:
        self._connected: dict[tuple[str, str], Callable[[], None]] = {}

    def register(self, owner: str, client_id: str, disconnect: Callable[[], None]) -> None:
        """Register a connection, and disconnect the older one of the same client."""
        older = self._connected.get((owner, client_id))
        self._connected[owner, client_id] = disconnect
        if older is not None:
            older()

    def unregister(self, owner: str, client_id: str, disconnect: Callable[[], None]) -> None:
        """Remove a connection, unless a newer one has replaced it."""
        if self._connected.get((owner, client_id)) == disconnect:
            del self._connected[owner, client_id]
