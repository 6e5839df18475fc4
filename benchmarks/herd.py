"""A herd of open sockets of many keys over every protocol, and how each of them ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass, field
from typing import Any

import picows

from gateway.concurrency.stopping import stop_tasks
from gateway.wire.mqtt import codec
from gateway.wire.mqtt.packets import V5, Connect, Type
from gateway.wire.mqtt.types import properties, text, variable

CHANNEL = "trades"
OPEN_WITHIN_S = 60.0
OPENING_AT_ONCE = 50
KINDS = ("stream", "sse", "mqtt", "proxied")
"""``idle`` is one more: a stream without a subscription."""


@dataclass(slots=True)
class End:
    """How a socket ended: ``code`` is the close code (WebSocket), the reason code (MQTT) or 0 (SSE)."""

    code: int
    reason: str
    at: float
    """On the monotonic clock."""


@dataclass(slots=True, eq=False)
class Member:
    """One socket of the herd."""

    kind: str
    key_id: str
    key: str
    opened: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    ended: asyncio.Future[End] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    heard: list[Any] = field(default_factory=list)
    """Messages received since it opened, without events."""
    events: int = 0
    writer: Any = None
    """Takes what it says: a transport of a WebSocket, a stream writer of MQTT."""

    def is_open(self) -> None:
        """Its subscription is granted."""
        if not self.opened.done():
            self.opened.set_result(None)

    def has_ended(self, code: int, reason: str) -> None:
        """Nothing more comes."""
        if not self.ended.done():
            self.ended.set_result(End(code, reason, time.monotonic()))
        if not self.opened.done():
            self.opened.set_exception(ConnectionError(f"{self.kind}: {code} {reason}"))

    def say(self, frame: Any) -> None:
        """Send a frame on a WebSocket."""
        self.writer.send(picows.WSMsgType.TEXT, frame if isinstance(frame, bytes) else json.dumps(frame).encode())


@dataclass(frozen=True, slots=True)
class Herd:
    """Where the sockets go, and all that were opened."""

    ready: dict[str, Any]
    """What the product's ready.json says."""
    members: list[Member] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self, keys: list[tuple[str, str]], kinds: tuple[str, ...]) -> list[Member]:
        """Open a socket of each of these kinds for each key, (id, text); gives them once all are open."""
        opening = asyncio.Semaphore(OPENING_AT_ONCE)
        new = [Member(kind, *key) for key in keys for kind in kinds]
        self.members.extend(new)
        async with asyncio.timeout(OPEN_WITHIN_S):
            await asyncio.gather(*(self._open(member, opening) for member in new))
        return new

    async def close(self) -> None:
        """Hang up."""
        await stop_tasks(*self.tasks)
        for member in self.members:
            if isinstance(member.writer, picows.WSTransport):
                member.writer.disconnect(graceful=False)
                await member.writer.wait_disconnected()
            elif member.writer is not None:
                member.writer.transport.abort()
            if member.opened.done() and not member.opened.cancelled():
                member.opened.exception()  # looked at, where nobody waited for it
        await asyncio.sleep(0)

    async def _open(self, member: Member, opening: asyncio.Semaphore) -> None:
        async with opening:
            if member.kind in ("sse", "mqtt"):
                read = _sse if member.kind == "sse" else _mqtt
                task = asyncio.create_task(read(self.ready, member))
                self.tasks.add(task)
            else:
                path = "/ws/market-data" if member.kind == "proxied" else "/v1/stream"
                await picows.ws_connect(
                    lambda: Listener(member), self.ready["ws_url"] + path, extra_headers={"X-API-Key": member.key}
                )
            await member.opened


class Listener(picows.WSListener):
    """One WebSocket: on the stream it subscribes first."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def on_ws_connected(self, transport: Any) -> None:
        """Subscribe, or be open at once."""
        self._member.writer = transport
        if self._member.kind == "stream":
            self._member.say({"type": "subscribe", "channel": CHANNEL})
        elif self._member.kind == "proxied":
            self._member.is_open()

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """Keep the reason of the close, or the message."""
        if frame.msg_type == picows.WSMsgType.CLOSE:
            payload = frame.get_close_reason() or ""
            reason = json.loads(payload).get("reason", "") if payload.startswith("{") else payload
            self._member.has_ended(int(frame.get_close_code() or 1005), reason)
            transport.disconnect()
        elif frame.msg_type == picows.WSMsgType.TEXT:
            payload = frame.get_payload_as_bytes()
            # What an upstream says may be anything.
            self._hear(
                json.loads(payload) if self._member.kind != "proxied" or payload.startswith(b'{"type":"error"') else {}
            )

    def _hear(self, message: dict[str, Any]) -> None:
        type_ = message.get("type", "event")
        if type_ == "subscribed":
            self._member.is_open()
        elif type_ == "event":
            self._member.events += 1
        elif type_ == "welcome":
            if self._member.kind == "idle":
                self._member.is_open()
        else:
            self._member.heard.append(message)

    def on_ws_disconnected(self, transport: Any) -> None:
        """Hung up without a word."""
        self._member.has_ended(1006, "")


async def _sse(ready: dict[str, Any], member: Member) -> None:
    """Read a stream of events to its end."""
    host, _, port = ready["base_url"].removeprefix("http://").rpartition(":")
    reader, member.writer = await asyncio.open_connection(host, int(port))
    head = f"GET /v1/events?channel={CHANNEL} HTTP/1.1\r\nhost: {host}\r\nx-api-key: {member.key}\r\n\r\n"
    member.writer.write(head.encode())
    if " 200 " not in (status := (await reader.readline()).decode()):
        member.has_ended(0, status.strip())
        return
    with contextlib.suppress(ConnectionError):
        await _events(reader, member)
    member.has_ended(0, member.heard[-1]["reason"] if member.heard else "")


async def _events(reader: asyncio.StreamReader, member: Member) -> None:
    """Read what a stream says: events are counted, errors kept."""
    name = ""
    while (line := (await reader.readline()).decode()) and line != "0\r\n":
        field_, _, value = line.rstrip().partition(": ")
        if field_ == "retry":
            member.is_open()
        elif field_ == "id":
            member.events += 1
        elif field_ == "event":
            name = value
        elif field_ == "data" and name == "error":
            member.heard.append(json.loads(value))
        elif not field_:
            name = ""


async def _mqtt(ready: dict[str, Any], member: Member) -> None:
    """Subscribe over MQTT 5 and read to the end."""
    host, _, port = ready["mqtt"].rpartition(":")
    reader, member.writer = await asyncio.open_connection(host, int(port))
    member.writer.write(codec.connect(Connect(V5, "", True, 0, "key", member.key.encode())))
    subscribe = (1).to_bytes(2, "big") + properties({}) + text(CHANNEL) + b"\x00"
    member.writer.write(b"\x82" + variable(len(subscribe)) + subscribe)
    code, reason = 0, ""
    try:
        while True:
            type_, content = await _packet(reader)
            if type_ is Type.SUBACK and content[-1] == 0:
                member.is_open()
            elif type_ is Type.DISCONNECT:
                code, reason = content[0], _user_property(content, b"reason")
                break
            elif type_ is Type.PUBLISH:
                member.events += 1
            elif type_ is not Type.CONNACK:
                member.heard.append((type_, content))
    except (asyncio.IncompleteReadError, ConnectionError):
        reason = "hung up"
    member.has_ended(code, reason)


async def _packet(reader: asyncio.StreamReader) -> tuple[Type, bytes]:
    first = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return Type(first >> 4), await reader.readexactly(length)


def _user_property(content: bytes, name: bytes) -> str:
    """Find a user property by its name: good enough for packets of our own."""
    marked = b"\x26" + len(name).to_bytes(2, "big") + name
    at = content.find(marked)
    if at < 0:
        return ""
    at += len(marked)
    length = int.from_bytes(content[at : at + 2], "big")
    return content[at + 2 : at + 2 + length].decode()
