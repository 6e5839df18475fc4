"""Encodes and decodes MQTT 3.1.1 and 5.0 packets. Bad input never raises: it is parsed as :class:`Malformed`."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import ClassVar

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
    RequestedFilter,
    Subscribe,
    Type,
    Unsubscribe,
    Will,
)
from gateway.wire.mqtt.types import PROTOCOL_ERROR, TOO_LARGE, PacketError, Reader

FLAGS = {Type.PUBREL: 0x02, Type.SUBSCRIBE: 0x02, Type.UNSUBSCRIBE: 0x02}
"""Fixed-header flags required by type (2.1.3); all others but PUBLISH have none."""
UNSUPPORTED_VERSION, BAD_CLIENT_ID, BAD_FILTER, BAD_TOPIC = 0x84, 0x85, 0x8F, 0x90
FILTERS_MAX = 1_000
"""The most topic filters of one packet; the specification sets no bound."""
PUBLISH_HEAD_MAX_BYTES = 7
"""Largest size of the fixed header and the packet id."""
PING_RESPONSE = bytes([Type.PINGRESP << 4, 0])


class Parser:
    """Parses packets from a stream of bytes. The first must be CONNECT, whose version governs all others."""

    __slots__ = ("_buffer", "_is_over", "_max", "parsed_bytes", "version")

    def __init__(self, packet_max_bytes: int) -> None:
        self._max = packet_max_bytes
        self._buffer = bytearray()
        self._is_over = False
        self.version = 0
        self.parsed_bytes = 0
        """Length of all packets returned so far."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes received and not yet parsed."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Append received bytes; ignored after Malformed."""
        if not self._is_over:
            self._buffer += data

    def next(self) -> Packet | None:
        """Return the next packet, or None if more bytes are needed. Malformed is the last one."""
        if self._is_over:
            return None
        try:
            return self._next()
        except PacketError as error:
            self._is_over = True
            self._buffer.clear()
            return Malformed(error.code, str(error))

    def _next(self) -> Packet | None:
        buffer = self._buffer
        if not buffer:
            return None
        first = buffer[0]
        if not self.version and first >> 4 != Type.CONNECT:
            raise PacketError("the first packet is not CONNECT", PROTOCOL_ERROR)
        sized = _size(buffer)
        if sized is None:
            return None
        length, head = sized
        if length + head > self._max:
            raise PacketError(f"a packet holds at most {self._max} bytes", TOO_LARGE)
        if len(buffer) < head + length:
            return None
        content = bytes(buffer[head : head + length])
        del buffer[: head + length]
        self.parsed_bytes += head + length
        return self._read(first >> 4, first & 0x0F, Reader(content))

    def _read(self, number: int, flags: int, reader: Reader) -> Packet:
        try:
            type_ = Type(number)
        except ValueError:
            raise PacketError("the packet type is unknown") from None
        if type_ is Type.PUBLISH:
            return self._publish(flags, reader)
        if flags != FLAGS.get(type_, 0):
            raise PacketError(f"{type_.name} has invalid flags")
        read = self._READERS.get(type_)
        if read is None:
            raise PacketError(f"{type_.name} is not sent by clients", PROTOCOL_ERROR)
        packet = read(self, reader, type_)
        if reader.left:
            raise PacketError(f"{type_.name} has trailing bytes")
        return packet

    def _connect(self, reader: Reader, type_: Type) -> Packet:
        if self.version:
            raise PacketError("a second CONNECT", PROTOCOL_ERROR)
        if reader.text() != "MQTT":
            raise PacketError("the protocol is not MQTT", UNSUPPORTED_VERSION)
        version = reader.number(1)
        if version not in (V311, V5):
            raise PacketError("the protocol version is neither MQTT 3.1.1 nor 5.0", UNSUPPORTED_VERSION)
        self.version = version
        flags, keep_alive_s = reader.number(1), reader.number(2)
        if flags & 0x01 or (not flags & 0x04 and flags & 0x38) or (flags >> 3) & 0x03 == 3:
            raise PacketError("CONNECT has invalid flags")
        if version == V311 and flags & 0x40 and not flags & 0x80:
            raise PacketError("a password without a user name")
        properties = reader.properties("CONNECT") if version == V5 else {}
        if "authentication_data" in properties and "authentication_method" not in properties:
            raise PacketError("authentication data without a method", PROTOCOL_ERROR)
        client_id = reader.text()
        is_clean = bool(flags & 0x02)
        if version == V311 and not client_id and not is_clean:
            raise PacketError("a client id is required without Clean Session", BAD_CLIENT_ID)
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
            raise PacketError("PUBLISH has invalid flags")
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
        filters = []
        while reader.left:
            filter_, options = reader.text(), reader.number(1)
            reserved = 0xC0 if self.version == V5 else 0xFC
            if options & reserved or options & 0x03 == 3 or options & 0x30 == 0x30:
                raise PacketError("SUBSCRIBE has invalid subscription options")
            if not filter_:
                raise PacketError("a topic filter is empty", BAD_FILTER)
            filters.append(
                RequestedFilter(filter_, options & 0x03, bool(options & 0x04), options >> 4 & 3, bool(options & 0x08))
            )
            _require_few(filters)
        if not filters:
            raise PacketError("SUBSCRIBE without a topic filter", PROTOCOL_ERROR)
        return Subscribe(packet_id, tuple(filters), properties)

    def _unsubscribe(self, reader: Reader, type_: Type) -> Packet:
        packet_id = _packet_id(reader)
        if self.version == V5:
            reader.properties("UNSUBSCRIBE")
        filters = []
        while reader.left:
            filters.append(reader.text())
            _require_few(filters)
        if not filters:
            raise PacketError("UNSUBSCRIBE without a topic filter", PROTOCOL_ERROR)
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
                raise PacketError("there is no AUTH in MQTT 3.1.1", PROTOCOL_ERROR)
            return Auth(code)
        return Disconnect(code)

    _READERS: ClassVar[dict[Type, Callable[[Parser, Reader, Type], Packet]]] = {
        Type.CONNECT: _connect,
        Type.PUBACK: _ack,
        Type.PUBREC: _ack,
        Type.PUBREL: _ack,
        Type.PUBCOMP: _ack,
        Type.SUBSCRIBE: _subscribe,
        Type.UNSUBSCRIBE: _unsubscribe,
        Type.PINGREQ: _ping,
        Type.DISCONNECT: _code_alone,
        Type.AUTH: _code_alone,
    }


def _size(buffer: bytearray) -> tuple[int, int] | None:
    """Return the remaining length and the size of the fixed header (2.1.4), or None if more bytes are needed."""
    length = 0
    for size in range(1, min(len(buffer), 5)):
        byte = buffer[size]
        length |= (byte & 0x7F) << (7 * (size - 1))
        if not byte & 0x80:
            if not byte and size > 1:
                raise PacketError("the remaining length is not encoded in the fewest bytes")
            return length, size + 1
    if len(buffer) >= 5:
        raise PacketError("the remaining length has more than four bytes")
    return None


def connect(packet: Connect) -> bytes:
    """Return CONNECT (3.1)."""
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
    """Return CONNACK (3.2), always with Session Present 0."""
    return _packet(Type.CONNACK, 0, bytes([0, code]) + _properties(version, properties or {}))


def shared_parts(version: int, packet: Publish) -> tuple[bytes, bytes, bytes]:
    """Return the parts of PUBLISH that all readers of an event share: topic, properties and payload."""
    return types.text(packet.topic), _properties(version, packet.properties), packet.payload


def publish_of(parts: tuple[bytes, bytes, bytes], qos: int, packet_id: int = 0, *, retain: bool = False) -> bytes:
    """Return PUBLISH (3.3) from its shared parts."""
    topic, properties, payload = parts
    head = bytes([Type.PUBLISH << 4 | qos << 1 | retain])
    length = len(topic) + len(properties) + len(payload)
    if not qos:
        return b"".join((head, types.variable(length), topic, properties, payload))
    return b"".join((head, types.variable(length + 2), topic, packet_id.to_bytes(2, "big"), properties, payload))


def publish(version: int, packet: Publish) -> bytes:
    """Return PUBLISH (3.3)."""
    flags = (0x08 if packet.is_duplicate else 0) | packet.qos << 1 | (0x01 if packet.retain else 0)
    packet_id = packet.packet_id.to_bytes(2, "big") if packet.qos else b""
    properties = _properties(version, packet.properties)
    return _packet(Type.PUBLISH, flags, b"".join([types.text(packet.topic), packet_id, properties, packet.payload]))


def ack(version: int, packet: Ack, reason: str = "", user: list[tuple[str, str]] | None = None) -> bytes:
    """Return PUBACK, PUBREC, PUBREL or PUBCOMP; on 3.1.1 without code and reason."""
    content = packet.packet_id.to_bytes(2, "big")
    if version == V5 and packet.code:
        content += bytes([packet.code]) + types.properties(reason_properties(reason, user))
    return _packet(packet.type, FLAGS.get(packet.type, 0), content)


def suback(
    version: int, packet_id: int, codes: list[int], reason: str = "", user: list[tuple[str, str]] | None = None
) -> bytes:
    """Return SUBACK (3.9)."""
    properties = _properties(version, reason_properties(reason, user))
    return _packet(Type.SUBACK, 0, packet_id.to_bytes(2, "big") + properties + bytes(codes))


def unsuback(version: int, packet_id: int, codes: list[int]) -> bytes:
    """Return UNSUBACK (3.11)."""
    content = packet_id.to_bytes(2, "big")
    return _packet(Type.UNSUBACK, 0, content + (types.properties({}) + bytes(codes) if version == V5 else b""))


def disconnect(version: int, code: int, reason: str = "", user: list[tuple[str, str]] | None = None) -> bytes:
    """Return a server's DISCONNECT (3.14); empty on 3.1.1, which has none."""
    if version != V5:
        return b""
    return _packet(Type.DISCONNECT, 0, bytes([code]) + types.properties(reason_properties(reason, user)))


def reason_properties(reason: str, user: list[tuple[str, str]] | None) -> Properties:
    """Return the properties that explain a reason code; none if both are empty."""
    values: Properties = {"reason": reason} if reason else {}
    return values | {"user": user} if user else values


def _properties(version: int, values: Properties) -> bytes:
    return types.properties(values) if version == V5 else b""


def _packet(type_: Type, flags: int, content: bytes) -> bytes:
    return bytes([type_ << 4 | flags]) + types.variable(len(content)) + content


def _require_few(filters: Sized) -> None:
    if len(filters) > FILTERS_MAX:
        raise PacketError(f"a packet has at most {FILTERS_MAX} topic filters", TOO_LARGE)


def _packet_id(reader: Reader) -> int:
    packet_id = reader.number(2)
    if not packet_id:
        raise PacketError("a packet id is 0")
    return packet_id


def _check_response_topic(properties: Properties) -> None:
    response = properties.get("response_topic")
    if response is not None and (not response or "+" in response or "#" in response):
        raise PacketError("a response topic is empty or contains a wildcard", PROTOCOL_ERROR)


def _topic(topic: str) -> str:
    if not topic or "+" in topic or "#" in topic:
        raise PacketError("the topic of a publish is empty or contains a wildcard", BAD_TOPIC)
    return topic
