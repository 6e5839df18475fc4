"""An MQTT session's state without sockets or clocks: packet ids, what is in flight, subscriptions, topic aliases."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import count

from gateway.protocols.mqtt.packets import V5, Connect, Publish, Wanted
from gateway.protocols.mqtt.wire import PROTOCOL_ERROR, Fault

IN_FLIGHT_MAX = 100
"""QoS 1 events on their way to a client before more are held back (its own Receive Maximum may be lower)."""
TOPIC_ALIAS_MAX = 20
SUBSCRIPTIONS_MAX = 200
QOS_GRANTED_MAX = 1
KEEP_ALIVE_FACTOR = 1.5


@dataclass(slots=True)
class Session:
    """What one connection remembers. It ends with its connection: CONNACK never says that one was present."""

    connect: Connect
    subscriptions: dict[str, Wanted] = field(default_factory=dict)
    received: set[int] = field(default_factory=set)
    """Packet ids of QoS 2 publishes between PUBREC and PUBREL: a duplicate of one is not stored again (4.3.3)."""
    in_flight: set[int] = field(default_factory=set)
    held: deque[Publish] = field(default_factory=deque)
    """QoS 1 events that wait until the client has acknowledged earlier ones."""
    aliases: dict[int, str] = field(default_factory=dict)
    _ids: count[int] = field(default_factory=lambda: count(1))

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
        if not 1 <= alias <= TOPIC_ALIAS_MAX:
            raise Fault("topic alias out of range", 0x94)
        if packet.topic:
            self.aliases[alias] = packet.topic
        elif alias not in self.aliases:
            raise Fault("a topic alias that was not said before", PROTOCOL_ERROR)
        return self.aliases[alias]

    def can_send(self) -> bool:
        """Another QoS 1 event may go now."""
        return len(self.in_flight) < self.in_flight_max

    def next_id(self) -> int:
        """Take a packet id that is not in use."""
        while True:
            packet_id = (next(self._ids) - 1) % 65_535 + 1
            if packet_id not in self.in_flight:
                self.in_flight.add(packet_id)
                return packet_id

    def limits(self, packet_max_bytes: int) -> dict[str, object]:
        """What CONNACK tells a client of MQTT 5 about what is taken here (3.2.2.3)."""
        if self.version != V5:
            return {}
        told: dict[str, object] = {
            "maximum_packet_size": packet_max_bytes,
            "topic_alias_maximum": TOPIC_ALIAS_MAX,
            "shared_available": 0,
            "identifiers_available": 0,
            "session_expiry": 0,
        }
        if not self.connect.client_id:
            told["assigned_client_id"] = f"auto-{id(self):x}"
        return told
