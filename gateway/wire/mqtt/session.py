"""An MQTT session's state without sockets or clocks: packet ids, what is in flight, subscriptions, topic aliases."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from gateway.wire.mqtt.packets import V5, Connect, Publish, Wanted
from gateway.wire.mqtt.types import BAD_ALIAS, PROTOCOL_ERROR, Fault

IN_FLIGHT_MAX = 100
"""QoS 1 events on their way to a client before more are held back (its own Receive Maximum may be lower)."""
RECEIVE_MAX = 1024
"""QoS 2 publishes that a client may leave without PUBREL."""
RECEIVE_MAX_EXCEEDED = 0x93
TOPIC_ALIAS_MAX = 20
SUBSCRIPTIONS_MAX = 200
CLIENT_ID_MAX_CHARS = 256
QOS_GRANTED_MAX = 1
KEEP_ALIVE_FACTOR = 1.5
PACKET_ID_MAX = 65_535

Parts = tuple[bytes, bytes, bytes]
"""What all readers of an event get alike (see ``codec.shared_parts``)."""


@dataclass(slots=True)
class Session:
    """What one connection remembers. It ends with its connection: CONNACK never says that one was present."""

    connect: Connect
    client_id: str = ""
    subscriptions: dict[str, Wanted] = field(default_factory=dict)
    held: deque[tuple[Parts, bool]] = field(default_factory=deque)
    """QoS 1 events, with their retain flag, that wait until the client has acknowledged earlier ones."""
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
        """How many QoS 1 events may be on their way."""
        return min(IN_FLIGHT_MAX, int(self.connect.properties.get("receive_maximum", IN_FLIGHT_MAX)))

    @property
    def silence_max_s(self) -> float | None:
        """After how much silence the client counts as gone (3.1.2.10); None where it asked for no keep alive."""
        return self.connect.keep_alive_s * KEEP_ALIVE_FACTOR if self.connect.keep_alive_s else None

    def topic_of(self, packet: Publish) -> str:
        """Resolve a topic alias (3.3.2.3.4). Raises Fault for one that was never said, or is out of range."""
        alias = packet.properties.get("topic_alias")
        if alias is None:
            return packet.topic
        if alias > TOPIC_ALIAS_MAX:
            raise Fault("a topic alias is out of range", BAD_ALIAS)
        if packet.topic:
            self._aliases[alias] = packet.topic
        elif alias not in self._aliases:
            raise Fault("a topic alias was not said before", PROTOCOL_ERROR)
        return self._aliases[alias]

    # QoS 2 in: a packet id is taken from PUBLISH to PUBREL, and a duplicate of it is not stored again (4.3.3)

    def begins(self, packet_id: int) -> bool:
        """Take the packet id of a QoS 2 publish; False where it is a duplicate. Raises Fault for one too many."""
        if packet_id in self._received:
            return False
        if len(self._received) >= RECEIVE_MAX:
            raise Fault("more QoS 2 publishes wait for PUBREL than are taken", RECEIVE_MAX_EXCEEDED)
        self._received[packet_id] = False
        return True

    def is_stored(self, packet_id: int) -> bool:
        """Say whether the QoS 2 publish of that packet id was stored."""
        return self._received.get(packet_id, False)

    def stored(self, packet_id: int) -> None:
        """The QoS 2 publish of that packet id is stored."""
        self._received[packet_id] = True

    def release(self, packet_id: int) -> bool:
        """Give a packet id free, at PUBREL or where its publish was refused; False where it was not taken."""
        return self._received.pop(packet_id, None) is not None

    # QoS 1 out

    def can_send(self) -> bool:
        """Another QoS 1 event may go now."""
        return len(self._in_flight) < self.in_flight_max

    def next_id(self) -> int:
        """Take a packet id that is not in use."""
        while True:
            packet_id = next(self._ids) % PACKET_ID_MAX + 1
            if packet_id not in self._in_flight:
                self._in_flight.add(packet_id)
                return packet_id

    def acknowledged(self, packet_id: int) -> None:
        """The client has it: its packet id may be used again. One that is not in use is ignored."""
        self._in_flight.discard(packet_id)

    def hold(self, parts: Parts, *, retain: bool = False) -> None:
        """Keep a QoS 1 event back until another may go."""
        self.held.append((parts, retain))
        self.held_bytes += sum(map(len, parts))

    def next_held(self) -> tuple[Parts, bool] | None:
        """Give the oldest event that was kept back and may go now."""
        if not self.held or not self.can_send():
            return None
        parts, retain = self.held.popleft()
        self.held_bytes -= sum(map(len, parts))
        return parts, retain

    def limits(self, packet_max_bytes: int) -> dict[str, object]:
        """What CONNACK tells a client of MQTT 5 about what is taken here (3.2.2.3)."""
        if self.version != V5:
            return {}
        told: dict[str, object] = {
            "session_expiry": 0,
            "receive_maximum": RECEIVE_MAX,
            "maximum_packet_size": packet_max_bytes,
            "topic_alias_maximum": TOPIC_ALIAS_MAX,
            "shared_available": 0,
            "identifiers_available": 0,
        }
        if not self.connect.client_id:
            told["assigned_client_id"] = self.client_id
        return told


class Clients:
    """Who is connected here, by consumer and client id: a client that comes again ends its older connection.

    Another consumer's client of the same id is another client.
    """

    def __init__(self) -> None:
        self._connected: dict[tuple[str, str], Callable[[], None]] = {}

    def take(self, consumer: str, client_id: str, leave: Callable[[], None]) -> None:
        """Enter a connection; the older one whose place it takes is told to leave."""
        older = self._connected.get((consumer, client_id))
        self._connected[consumer, client_id] = leave
        if older is not None:
            older()

    def left(self, consumer: str, client_id: str, leave: Callable[[], None]) -> None:
        """Strike a connection off, unless another has taken its place."""
        if self._connected.get((consumer, client_id)) == leave:
            del self._connected[consumer, client_id]
