"""An MQTT client that may misbehave: writes packets, or any bytes, and reads answers as they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import mqtt5

from gateway.tests.event_plane import QUIET_S, WAIT_S, EventPlane
from gateway.wire.mqtt import codec, types
from gateway.wire.mqtt.packets import V5, Ack, Connect, Publish, Type, Will


@dataclass
class Answer:
    """A packet as it came: its type, its flags and what it holds."""

    type: Type
    flags: int
    content: bytes

    @property
    def packet_id(self) -> int:
        at = 2 + int.from_bytes(self.content[:2], "big") if self.type is Type.PUBLISH else 0
        return int.from_bytes(self.content[at : at + 2], "big")

    @property
    def v5(self) -> Any:
        """The packet as another implementation reads it."""
        raw = bytes([self.type << 4 | self.flags]) + types.variable(len(self.content)) + self.content
        packet, read = mqtt5.read(raw)
        assert read == len(raw)
        return packet

    @property
    def topic_and_payload(self) -> tuple[str, bytes]:
        """Of a QoS 0 or 1 PUBLISH of 3.1.1."""
        length = int.from_bytes(self.content[:2], "big")
        at = 2 + length + (2 if self.flags & 0x06 else 0)
        return self.content[2 : 2 + length].decode(), self.content[at:]


def subscribe(
    version: int, packet_id: int, *filters: tuple[str, int], user: list[tuple[str, str]] | None = None
) -> bytes:
    properties = types.properties({"user": user} if user else {}) if version == V5 else b""
    wanted = b"".join(types.text(filter_) + bytes([options]) for filter_, options in filters)
    content = packet_id.to_bytes(2, "big") + properties + wanted
    return b"\x82" + types.variable(len(content)) + content


def unsubscribe(version: int, packet_id: int, *filters: str) -> bytes:
    content = packet_id.to_bytes(2, "big") + (b"\x00" if version == V5 else b"") + b"".join(map(types.text, filters))
    return b"\xa2" + types.variable(len(content)) + content


class MqttClient:
    def __init__(self, port: int, version: int, ip: str = "127.0.0.1") -> None:
        self._port = port
        self._ip = ip
        self.version = version

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(self._ip, 0))

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def connect(
        self,
        key: str | None,
        *,
        client_id: str = "",
        keep_alive_s: int = 0,
        will: Will | None = None,
        properties: dict[str, Any] | None = None,
        username: str | None = "any",
        is_clean: bool = True,
    ) -> Answer:
        password = key.encode() if key is not None else None
        packet = Connect(self.version, client_id, is_clean, keep_alive_s, username, password, will, properties or {})
        self.write(codec.connect(packet))
        return await self.answer(Type.CONNACK)

    def publish(self, topic: str, payload: bytes, qos: int = 0, packet_id: int = 0, **more: Any) -> None:
        self.write(codec.publish(self.version, Publish(topic, payload, qos, packet_id=packet_id, **more)))

    async def subscribe(self, *filters: tuple[str, int], user: list[tuple[str, str]] | None = None) -> list[int]:
        self.write(subscribe(self.version, 7, *filters, user=user))
        answer = await self.answer(Type.SUBACK)
        return list(answer.content[-len(filters) :])

    def ack(self, type_: Type, packet_id: int) -> None:
        self.write(codec.ack(self.version, Ack(type_, packet_id)))

    async def answer(self, type_: Type | None = None) -> Answer:
        """Return the next packet, which must be of that type."""
        async with asyncio.timeout(WAIT_S):
            first = (await self.reader.readexactly(1))[0]
            length = shift = 0
            while True:
                byte = (await self.reader.readexactly(1))[0]
                length |= (byte & 0x7F) << shift
                shift += 7
                if not byte & 0x80:
                    break
            content = await self.reader.readexactly(length)
        answer = Answer(Type(first >> 4), first & 0x0F, content)
        assert type_ is None or answer.type is type_, answer
        return answer

    async def ends(self) -> bytes:
        """Wait until the listener hangs up; give what it said before."""
        try:
            return await asyncio.wait_for(self.reader.read(), WAIT_S)
        except ConnectionResetError:
            return b""

    async def hears_nothing(self) -> bool:
        try:
            await asyncio.wait_for(self.reader.readexactly(1), QUIET_S)
        except TimeoutError:
            return True
        return False

    async def is_served(self) -> bool:
        """Return whether the connection is alive."""
        self.write(b"\xc0\x00")
        return (await self.answer()).type is Type.PINGRESP


@asynccontextmanager
async def client(plane: EventPlane, version: int, ip: str = "127.0.0.1") -> AsyncIterator[MqttClient]:
    """Open a connection; nothing is said on it yet."""
    one = MqttClient(plane.mqtt_port, version, ip)  # type: ignore[attr-defined]
    await one.open()
    try:
        yield one
    finally:
        one.writer.close()
