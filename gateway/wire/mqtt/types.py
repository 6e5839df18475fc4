"""MQTT data types and properties as bytes (MQTT 5.0 sections 1.5 and 2.2.2)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gateway.wire.mqtt.packets import Properties

MALFORMED, PROTOCOL_ERROR, BAD_ALIAS, TOO_LARGE = 0x81, 0x82, 0x94, 0x95
VARIABLE_MAX = 268_435_455
TEXT_MAX_BYTES = 65_535
_FORBIDDEN = re.compile("[\x00\ud800-\udfff]")

BYTE, TWO, FOUR, VARIABLE, TEXT, BINARY, PAIR = range(7)
PROPERTIES = {
    0x01: ("payload_format", BYTE), 0x02: ("message_expiry", FOUR), 0x03: ("content_type", TEXT),
    0x08: ("response_topic", TEXT), 0x09: ("correlation_data", BINARY), 0x0B: ("subscription_identifier", VARIABLE),
    0x11: ("session_expiry", FOUR), 0x12: ("assigned_client_id", TEXT), 0x13: ("server_keep_alive", TWO),
    0x15: ("authentication_method", TEXT), 0x16: ("authentication_data", BINARY), 0x17: ("request_problem", BYTE),
    0x18: ("will_delay", FOUR), 0x19: ("request_response", BYTE), 0x1A: ("response_information", TEXT),
    0x1C: ("server_reference", TEXT), 0x1F: ("reason", TEXT), 0x21: ("receive_maximum", TWO),
    0x22: ("topic_alias_maximum", TWO), 0x23: ("topic_alias", TWO), 0x24: ("maximum_qos", BYTE),
    0x25: ("retain_available", BYTE), 0x26: ("user", PAIR), 0x27: ("maximum_packet_size", FOUR),
    0x28: ("wildcards_available", BYTE), 0x29: ("identifiers_available", BYTE), 0x2A: ("shared_available", BYTE),
}  # fmt: skip
IDS = {name: (id_, kind) for id_, (name, kind) in PROPERTIES.items()}
REPEATABLE = {"user"}
REPEATED_MAX = 256
"""The specification sets no bound; each costs time to parse, and a packet could hold a hundred thousand."""
_MESSAGE = {"payload_format", "message_expiry", "content_type", "response_topic", "correlation_data", "user"}
_REASON = {"reason", "user"}
ALLOWED: dict[str, set[str]] = {
    "CONNECT": {
        "session_expiry", "receive_maximum", "maximum_packet_size", "topic_alias_maximum", "request_response",
        "request_problem", "user", "authentication_method", "authentication_data",
    },
    "WILL": _MESSAGE | {"will_delay"},
    "PUBLISH": _MESSAGE | {"topic_alias"},
    "PUBACK": _REASON, "PUBREC": _REASON, "PUBREL": _REASON, "PUBCOMP": _REASON,
    "SUBSCRIBE": {"subscription_identifier", "user"},
    "UNSUBSCRIBE": {"user"},
    "DISCONNECT": _REASON | {"session_expiry"},
    "AUTH": _REASON | {"authentication_method", "authentication_data"},
}  # fmt: skip
"""Properties that a client's packets may have (MQTT 5.0 table 2-4)."""
_NEVER_ZERO = {"receive_maximum", "maximum_packet_size", "subscription_identifier"}
_FLAGS = {"request_problem", "request_response", "payload_format"}


class PacketError(Exception):
    """A packet is malformed or not allowed at this point, with the MQTT 5 reason code."""

    def __init__(self, detail: str, code: int = MALFORMED) -> None:
        super().__init__(detail)
        self.code = code


class Reader:
    """Reads the content of one packet; every read is bounded by its end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes. Raises PacketError if there are fewer."""
        begin = self._at
        end = begin + count
        if end > len(self._data):
            raise PacketError("a length exceeds the packet")
        self._at = end
        return self._data[begin:end]

    def number(self, bytes_: int) -> int:
        """Read a big-endian integer."""
        return int.from_bytes(self.take(bytes_), "big")

    def variable(self) -> int:
        """Read a variable byte integer (1.5.5): at most four bytes, in the shortest encoding."""
        if self._at < len(self._data) and self._data[self._at] < 0x80:
            self._at += 1
            return self._data[self._at - 1]
        value, shift = 0, 0
        for position in range(4):
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                if byte == 0 and position:
                    raise PacketError("a variable byte integer is not encoded in the fewest bytes")
                return value
            shift += 7
        raise PacketError("a variable byte integer has more than four bytes")

    def binary(self) -> bytes:
        """Read binary data prefixed with its length (1.5.6)."""
        return self.take(self.number(2))

    def text(self) -> str:
        """Read a UTF-8 string (1.5.4): well-formed, without NUL or surrogates."""
        try:
            text = self.binary().decode()
        except UnicodeDecodeError:
            raise PacketError("text is not UTF-8") from None
        if "\x00" in text:
            raise PacketError("text contains NUL")
        return text

    def rest(self) -> bytes:
        return self.take(self.left)

    def properties(self, packet: str) -> Properties:
        """Read a packet's properties (2.2.2). Raises PacketError for one that is not allowed or not repeatable."""
        length = self.variable()
        found: Properties = {}
        if not length:
            return found
        reader, allowed = Reader(self.take(length)), ALLOWED[packet]
        while reader.left:
            name, kind = PROPERTIES.get(reader.variable(), ("", BYTE))
            if name not in allowed:
                raise PacketError(f"{packet} has a property that is not allowed")
            value = _READ[kind](reader)
            if name in REPEATABLE:
                values = found.setdefault(name, [])
                values.append(value)
                if len(values) > REPEATED_MAX:
                    raise PacketError(f"{packet} has more than {REPEATED_MAX} properties {name}", TOO_LARGE)
            elif name in found:
                raise PacketError(f"the property {name} is repeated", PROTOCOL_ERROR)
            else:
                found[name] = _checked(name, value)
        return found


def _checked(name: str, value: object) -> object:
    if (name in _NEVER_ZERO and value == 0) or (name in _FLAGS and value not in (0, 1)):
        raise PacketError(f"the property {name} is out of range", PROTOCOL_ERROR)
    if name == "topic_alias" and value == 0:
        raise PacketError("a topic alias is 0", BAD_ALIAS)
    return value


_READ: dict[int, Callable[[Reader], Any]] = {
    BYTE: lambda reader: reader.number(1),
    TWO: lambda reader: reader.number(2),
    FOUR: lambda reader: reader.number(4),
    VARIABLE: Reader.variable,
    TEXT: Reader.text,
    BINARY: Reader.binary,
    PAIR: lambda reader: (reader.text(), reader.text()),
}


def variable(value: int) -> bytes:
    """Return a variable byte integer."""
    if not 0 <= value <= VARIABLE_MAX:
        raise ValueError("the packet exceeds the largest remaining length of MQTT")
    out = bytearray()
    while True:
        value, byte = divmod(value, 128)
        out.append(byte | 0x80 if value else byte)
        if not value:
            return bytes(out)


def binary(data: bytes) -> bytes:
    """Return binary data prefixed with its length."""
    return len(data).to_bytes(2, "big") + data


def text(value: str) -> bytes:
    """Return a UTF-8 string without forbidden characters (1.5.4), cut between characters if it is too long."""
    data = _FORBIDDEN.sub("", value).encode()
    return binary(data if len(data) <= TEXT_MAX_BYTES else data[:TEXT_MAX_BYTES].decode(errors="ignore").encode())


def properties(values: Properties) -> bytes:
    """Return properties prefixed with their length."""
    out = b"".join(_property(name, value) for name, value in values.items())
    return variable(len(out)) + out


def _property(name: str, value: object) -> bytes:
    id_, kind = IDS[name]
    if isinstance(value, list):
        return b"".join(_property(name, item) for item in value)
    return bytes([id_]) + _WRITE[kind](value)


_WRITE: dict[int, Callable[[Any], bytes]] = {
    BYTE: lambda value: bytes([value]),
    TWO: lambda value: value.to_bytes(2, "big"),
    FOUR: lambda value: value.to_bytes(4, "big"),
    VARIABLE: variable,
    TEXT: text,
    BINARY: binary,
    PAIR: lambda value: text(value[0]) + text(value[1]),
}
