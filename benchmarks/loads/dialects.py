"""How a client of each protocol opens a connection, reads a channel and publishes to it, as bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from gateway.wire.mqtt import codec
from gateway.wire.mqtt.packets import V311, Connect, Publish
from gateway.wire.mqtt.types import text, variable

Step = tuple[bytes, bytes]
"""What to send, and what must come before the next step."""

MARK = b'"mark":"'
MARK_DIGITS = 6
PUBACK_BYTES = 4


@dataclass(frozen=True, slots=True)
class Dialect:
    """One protocol of one server."""

    port: int
    reading: tuple[Step, ...]
    """Opens a connection that reads the channel."""
    idle: tuple[Step, ...]
    """Opens a connection that may publish."""
    publish: Callable[[int], bytes] = lambda _: b""
    acknowledged: bytes = b""
    """What each acknowledgement contains; empty where it is any ``PUBACK_BYTES``."""


def stream(port: int, key: str, channel: str, path: str = "/v1/stream") -> Dialect:
    """Return the dialect of the many-channel WebSocket."""
    welcome = (upgrade(path, key), b'"type":"welcome"')
    subscribe = (frame(_compact({"type": "subscribe", "channel": channel})), b'"type":"subscribed"')

    def publish(number: int) -> bytes:
        return frame(_compact({"type": "publish", "channel": channel, "data": event(number)}))

    return Dialect(port, (welcome, subscribe), (welcome,), publish, b'"type":"published"')


def sse(port: int, key: str, channel: str) -> Dialect:
    """Return the dialect of event streams, which only read."""
    head = f"GET /v1/events?channel={channel} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: {key}\r\n\r\n"
    steps = ((head.encode(), b"retry:"),)
    return Dialect(port, steps, steps)


def mqtt(port: int, key: str, channel: str, qos: int = 0) -> Dialect:
    """Return the dialect of MQTT 3.1.1; readers subscribe with QoS 0, publishers use this one."""
    connect = (codec.connect(Connect(V311, "", True, 0, "key", key.encode())), b"\x20\x02\x00\x00")
    filters = (1).to_bytes(2, "big") + text(channel) + b"\x00"
    subscribe = (b"\x82" + variable(len(filters)) + filters, b"\x90\x03\x00\x01\x00")

    def publish(number: int) -> bytes:
        packet_id = number % 65_535 + 1 if qos else 0
        return codec.publish(V311, Publish(channel, _compact(event(number)), qos, packet_id=packet_id))

    return Dialect(port, (connect, subscribe), (connect,), publish)


def centrifuge(port: int, _: str, channel: str) -> Dialect:
    """Return the dialect of centrifuge's JSON; its server subscribes each client."""
    steps = (
        (upgrade("/connection/websocket", ""), b"\r\n\r\n"),
        (frame(b'{"id":1,"connect":{}}'), b'"connect":'),
    )

    def publish(number: int) -> bytes:
        return frame(_compact({"id": number + 2, "publish": {"channel": channel, "data": event(number)}}))

    return Dialect(port, steps, steps, publish, b'"publish":{}')


def tunnel(port: int, key: str, path: str) -> Dialect:
    """Return the dialect of a proxied WebSocket."""
    steps = ((upgrade(path, key), b"\r\n\r\n"),)
    return Dialect(port, steps, steps)


DIALECTS: dict[str, Callable[..., Dialect]] = {
    "stream": stream,
    "sse": sse,
    "mqtt": mqtt,
    "centrifuge": centrifuge,
    "tunnel": tunnel,
}


def event(number: int) -> dict[str, object]:
    """Return the event that is published; all have the same size."""
    return {"symbol": "ACME", "price": 104.2, "quantity": 5, "mark": f"{number:0{MARK_DIGITS}}"}


def frame(payload: bytes, opcode: int = 1) -> bytes:
    """Return a client's WebSocket frame of less than 64 KiB, masked with zeros (RFC 6455, 5.2)."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + b"\0\0\0\0" + payload


def upgrade(path: str, key: str) -> bytes:
    """Return the head that opens a WebSocket (RFC 6455, 4.1)."""
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]
    lines += [f"X-API-Key: {key}"] if key else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
