"""MQTT 3.1.1 and 5.0 packets to values and back. Bad input never raises: it is read as :class:`Malformed`."""

from __future__ import annotations

from gateway.wire.mqtt import types
from gateway.wire.mqtt.packets import (
    V5,
    V311,
    Ack,
    Auth,
    Connect,
    Disconnect,
    Malformed,
    Packet,
    Ping,
    Properties,
    Publish,
    Subscribe,
    Type,
    Unsubscribe,
    Wanted,
    Will,
)
from gateway.wire.mqtt.types import PROTOCOL_ERROR, TOO_LARGE, Fault, Reader

FLAGS = {Type.PUBREL: 0x02, Type.SUBSCRIBE: 0x02, Type.UNSUBSCRIBE: 0x02}
"""Flags that a type must have (2.1.3); all others but PUBLISH have none."""
UNSUPPORTED_VERSION, BAD_CLIENT_ID, BAD_FILTER, BAD_TOPIC = 0x84, 0x85, 0x8F, 0x90
PUBLISH_HEAD_MAX_BYTES = 7
"""Fixed header and packet id, at most."""
PING_RESPONSE = bytes([Type.PINGRESP << 4, 0])


class Parser:
    """Reads packets from bytes as they come. The first must be CONNECT; its version is that of all that follow."""

    def __init__(self, packet_max_bytes: int) -> None:
        self._max = packet_max_bytes
        self._buffer = bytearray()
        self._is_over = False
        self._readers = {
            Type.CONNECT: self._connect,
            Type.PUBACK: self._ack,
            Type.PUBREC: self._ack,
            Type.PUBREL: self._ack,
            Type.PUBCOMP: self._ack,
            Type.SUBSCRIBE: self._subscribe,
            Type.UNSUBSCRIBE: self._unsubscribe,
            Type.PINGREQ: self._ping,
            Type.DISCONNECT: self._code_alone,
            Type.AUTH: self._code_alone,
        }
        self.version = 0

    @property
    def waiting_bytes(self) -> int:
        """Bytes that came and were not yet read as packets."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take what came. After Malformed nothing is read any more."""
        if not self._is_over:
            self._buffer += data

    def next(self) -> Packet | None:
        """Give the next packet, None where more must come first. After Malformed nothing more comes."""
        if self._is_over:
            return None
        try:
            return self._next()
        except Fault as fault:
            self._is_over = True
            self._buffer.clear()
            return Malformed(fault.code, str(fault))

    def _next(self) -> Packet | None:
        buffer = self._buffer
        if not buffer:
            return None
        first = buffer[0]
        if not self.version and first >> 4 != Type.CONNECT:
            raise Fault("the first packet is not CONNECT", PROTOCOL_ERROR)
        sized = _size(buffer)
        if sized is None:
            return None
        length, head = sized
        if length + head > self._max:
            raise Fault(f"a packet holds at most {self._max} bytes", TOO_LARGE)
        if len(buffer) < head + length:
            return None
        content = bytes(buffer[head : head + length])
        del buffer[: head + length]
        return self._read(first >> 4, first & 0x0F, Reader(content))

    def _read(self, number: int, flags: int, reader: Reader) -> Packet:
        try:
            type_ = Type(number)
        except ValueError:
            raise Fault("there is no packet of this type") from None
        if type_ is Type.PUBLISH:
            return self._publish(flags, reader)
        if flags != FLAGS.get(type_, 0):
            raise Fault(f"{type_.name} has flags that it may not have")
        read = self._readers.get(type_)
        if read is None:
            raise Fault(f"{type_.name} is not a client's to send", PROTOCOL_ERROR)
        packet = read(reader, type_)
        if reader.left:
            raise Fault(f"{type_.name} is longer than it should be")
        return packet

    def _connect(self, reader: Reader, type_: Type) -> Packet:
        if self.version:
            raise Fault("a second CONNECT", PROTOCOL_ERROR)
        if reader.text() != "MQTT":
            raise Fault("the protocol is not MQTT", UNSUPPORTED_VERSION)
        version = reader.number(1)
        if version not in (V311, V5):
            raise Fault("MQTT 3.1.1 and 5.0 are spoken here", UNSUPPORTED_VERSION)
        self.version = version
        flags, keep_alive_s = reader.number(1), reader.number(2)
        if flags & 0x01 or (not flags & 0x04 and flags & 0x38) or (flags >> 3) & 0x03 == 3:
            raise Fault("CONNECT has flags that it may not have")
        if version == V311 and flags & 0x40 and not flags & 0x80:
            raise Fault("a password without a user name")
        properties = reader.properties("CONNECT") if version == V5 else {}
        if "authentication_data" in properties and "authentication_method" not in properties:
            raise Fault("authentication data without a method", PROTOCOL_ERROR)
        client_id = reader.text()
        is_clean = bool(flags & 0x02)
        if version == V311 and not client_id and not is_clean:
            raise Fault("a session that is to be kept needs a client id", BAD_CLIENT_ID)
        will = self._will(flags, reader) if flags & 0x04 else None
        username = reader.text() if flags & 0x80 else None
        password = reader.binary() if flags & 0x40 else None
        return Connect(version, client_id, is_clean, keep_alive_s, username, password, will, properties)

    def _will(self, flags: int, reader: Reader) -> Will:
        properties = reader.properties("WILL") if self.version == V5 else {}
        _check_response_topic(properties)
        topic = _topic(reader.text())
        return Will(topic, reader.binary(), (flags >> 3) & 0x03, bool(flags & 0x20), properties)

    def _publish(self, flags: int, reader: Reader) -> Packet:
        qos = (flags >> 1) & 0x03
        if qos == 3 or (not qos and flags & 0x08):
            raise Fault("PUBLISH has flags that it may not have")
        topic = reader.text()
        packet_id = _packet_id(reader) if qos else 0
        properties = reader.properties("PUBLISH") if self.version == V5 else {}
        _check_response_topic(properties)
        if topic or "topic_alias" not in properties:
            _topic(topic)
        return Publish(topic, reader.rest(), qos, bool(flags & 0x01), bool(flags & 0x08), packet_id, properties)

    def _ack(self, reader: Reader, type_: Type) -> Packet:
        packet_id = _packet_id(reader)
        code = 0
        if self.version == V5 and reader.left:
            code = reader.number(1)
            if reader.left:
                reader.properties(type_.name)
        return Ack(type_, packet_id, code)

    def _subscribe(self, reader: Reader, type_: Type) -> Packet:
        packet_id = _packet_id(reader)
        properties = reader.properties("SUBSCRIBE") if self.version == V5 else {}
        wanted = []
        while reader.left:
            filter_, options = reader.text(), reader.number(1)
            reserved = 0xC0 if self.version == V5 else 0xFC
            if options & reserved or options & 0x03 == 3 or options & 0x30 == 0x30:
                raise Fault("SUBSCRIBE has options that it may not have")
            if not filter_:
                raise Fault("a topic filter is empty", BAD_FILTER)
            wanted.append(Wanted(filter_, options & 0x03, bool(options & 0x04), options >> 4 & 3, bool(options & 0x08)))
        if not wanted:
            raise Fault("SUBSCRIBE without a topic filter", PROTOCOL_ERROR)
        return Subscribe(packet_id, tuple(wanted), properties)

    def _unsubscribe(self, reader: Reader, type_: Type) -> Packet:
        packet_id = _packet_id(reader)
        if self.version == V5:
            reader.properties("UNSUBSCRIBE")
        filters = []
        while reader.left:
            filters.append(reader.text())
        if not filters:
            raise Fault("UNSUBSCRIBE without a topic filter", PROTOCOL_ERROR)
        return Unsubscribe(packet_id, tuple(filters))

    def _ping(self, reader: Reader, type_: Type) -> Packet:
        return Ping()

    def _code_alone(self, reader: Reader, type_: Type) -> Packet:
        code = 0
        if self.version == V5 and reader.left:
            code = reader.number(1)
            if reader.left:
                reader.properties(type_.name)
        if type_ is Type.AUTH:
            if self.version != V5:
                raise Fault("there is no AUTH in MQTT 3.1.1", PROTOCOL_ERROR)
            return Auth(code)
        return Disconnect(code)


def _size(buffer: bytearray) -> tuple[int, int] | None:
    """Read a packet's remaining length and the size of its fixed header (2.1.4); None where more must come first."""
    length = 0
    for size in range(1, min(len(buffer), 5)):
        byte = buffer[size]
        length |= (byte & 0x7F) << (7 * (size - 1))
        if not byte & 0x80:
            if not byte and size > 1:
                raise Fault("the packet's length is written longer than it needs to be")
            return length, size + 1
    if len(buffer) >= 5:
        raise Fault("the packet's length has more than four bytes")
    return None


def connect(packet: Connect) -> bytes:
    """Write CONNECT (3.1)."""
    flags = 0x02 if packet.is_clean else 0
    content = [types.text("MQTT"), bytes([packet.version])]
    tail = [types.text(packet.client_id)]
    if packet.will is not None:
        flags |= 0x04 | packet.will.qos << 3 | (0x20 if packet.will.retain else 0)
        tail += [_properties(packet.version, packet.will.properties), types.text(packet.will.topic)]
        tail.append(types.binary(packet.will.payload))
    if packet.username is not None:
        flags |= 0x80
        tail.append(types.text(packet.username))
    if packet.password is not None:
        flags |= 0x40
        tail.append(types.binary(packet.password))
    content += [bytes([flags]), packet.keep_alive_s.to_bytes(2, "big"), _properties(packet.version, packet.properties)]
    return _packet(Type.CONNECT, 0, b"".join([*content, *tail]))


def connack(version: int, code: int, properties: Properties | None = None) -> bytes:
    """Write CONNACK (3.2); no session is ever present."""
    return _packet(Type.CONNACK, 0, bytes([0, code]) + _properties(version, properties or {}))


def shared_parts(version: int, packet: Publish) -> tuple[bytes, bytes, bytes]:
    """Write what is the same for all who get an event: the topic, the properties and the payload."""
    return types.text(packet.topic), _properties(version, packet.properties), packet.payload


def publish_of(parts: tuple[bytes, bytes, bytes], qos: int, packet_id: int = 0, *, retain: bool = False) -> bytes:
    """Write PUBLISH (3.3) from its shared parts."""
    topic, properties, payload = parts
    head = bytes([Type.PUBLISH << 4 | qos << 1 | retain])
    length = len(topic) + len(properties) + len(payload)
    if not qos:
        return b"".join((head, types.variable(length), topic, properties, payload))
    return b"".join((head, types.variable(length + 2), topic, packet_id.to_bytes(2, "big"), properties, payload))


def publish(version: int, packet: Publish) -> bytes:
    """Write PUBLISH (3.3)."""
    flags = (0x08 if packet.is_duplicate else 0) | packet.qos << 1 | (0x01 if packet.retain else 0)
    packet_id = packet.packet_id.to_bytes(2, "big") if packet.qos else b""
    properties = _properties(version, packet.properties)
    return _packet(Type.PUBLISH, flags, b"".join([types.text(packet.topic), packet_id, properties, packet.payload]))


def ack(version: int, packet: Ack, reason: str = "", user: list[tuple[str, str]] | None = None) -> bytes:
    """Write PUBACK, PUBREC, PUBREL or PUBCOMP; what 3.1.1 cannot say is left out."""
    content = packet.packet_id.to_bytes(2, "big")
    if version == V5 and packet.code:
        content += bytes([packet.code]) + types.properties(told(reason, user))
    return _packet(packet.type, FLAGS.get(packet.type, 0), content)


def suback(
    version: int, packet_id: int, codes: list[int], reason: str = "", user: list[tuple[str, str]] | None = None
) -> bytes:
    """Write SUBACK (3.9)."""
    words = _properties(version, told(reason, user))
    return _packet(Type.SUBACK, 0, packet_id.to_bytes(2, "big") + words + bytes(codes))


def unsuback(version: int, packet_id: int, codes: list[int]) -> bytes:
    """Write UNSUBACK (3.11)."""
    content = packet_id.to_bytes(2, "big")
    return _packet(Type.UNSUBACK, 0, content + (types.properties({}) + bytes(codes) if version == V5 else b""))


def disconnect(version: int, code: int, reason: str = "", user: list[tuple[str, str]] | None = None) -> bytes:
    """Write a server's DISCONNECT (3.14): MQTT 5 alone has one."""
    if version != V5:
        return b""
    return _packet(Type.DISCONNECT, 0, bytes([code]) + types.properties(told(reason, user)))


def told(reason: str, user: list[tuple[str, str]] | None) -> Properties:
    """Make properties of what a client is told besides a code."""
    words: Properties = {"reason": reason} if reason else {}
    return words | {"user": user} if user else words


def _properties(version: int, values: Properties) -> bytes:
    return types.properties(values) if version == V5 else b""


def _packet(type_: Type, flags: int, content: bytes) -> bytes:
    return bytes([type_ << 4 | flags]) + types.variable(len(content)) + content


def _packet_id(reader: Reader) -> int:
    packet_id = reader.number(2)
    if not packet_id:
        raise Fault("a packet id is 0")
    return packet_id


def _check_response_topic(properties: Properties) -> None:
    response = properties.get("response_topic")
    if response is not None and (not response or "+" in response or "#" in response):
        raise Fault("a response topic is empty or holds a wildcard", PROTOCOL_ERROR)


def _topic(topic: str) -> str:
    if not topic or "+" in topic or "#" in topic:
        raise Fault("a topic to publish to is empty or holds a wildcard", BAD_TOPIC)
    return topic
