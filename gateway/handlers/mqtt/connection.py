"""One MQTT connection: PUBLISH packets are stored in channels, topic filters deliver events from them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.call import Call, Reply
from gateway.channels.access import channel_for
from gateway.channels.outbox import SEND_TIMEOUT_S, Outbox
from gateway.concurrency.ending import Ending
from gateway.concurrency.stopping import stop_tasks
from gateway.durable.mqtt_sessions import TakenOver
from gateway.handlers.mqtt.publishing import Publishing
from gateway.handlers.mqtt.receiving import Receiving
from gateway.handlers.mqtt.subscribing import Subscribing
from gateway.peer import ClientGone
from gateway.refusals import ErrorClass, Reason, Refused
from gateway.snapshot.right import Verb
from gateway.wire.mqtt import codec
from gateway.wire.mqtt.packets import (
    Ack,
    Connect,
    Disconnect,
    Malformed,
    Packet,
    Ping,
    Publish,
    Subscribe,
    Type,
    Unsubscribe,
)
from gateway.wire.mqtt.replies import TAKEN_OVER, ProtocolViolation, Replies
from gateway.wire.mqtt.session import Session
from gateway.wire.mqtt.types import PROTOCOL_ERROR, PacketError

if TYPE_CHECKING:
    from gateway.plane import Plane

WITH_WILL = 0x04
FLUSH_S = 1.0
"""Time limit for sending the last acknowledgements."""
LOSES_ITS_WILL = frozenset(
    {
        Reason.KEY_REVOKED,
        Reason.TOKEN_EXPIRED,
        Reason.FORBIDDEN,
        Reason.IP_NOT_ALLOWED,
        Reason.ORIGIN_NOT_ALLOWED,
    }
)
"""Refusals that end a connection without publishing its will: the client is no longer authorized."""


async def handle_mqtt(plane: Plane, call: Call) -> Reply:
    """Serve an authenticated, limited connection until it ends (the handler ``mqtt``)."""
    return await MqttConnection(plane, call).serve()


class MqttConnection:
    """One MQTT connection of one consumer."""

    __slots__ = (
        "_call", "_ending", "_is_disconnected", "_outbox", "_peer", "_plane", "_publishing", "_receiving",
        "_session", "_subscribing", "_will",
    )  # fmt: skip

    def __init__(self, plane: Plane, call: Call) -> None:
        self._plane = plane
        self._call = call
        self._peer = call.peer
        connect: Connect = call.peer.connect
        self._session = Session(connect)
        self._will = connect.will
        self._ending: Ending[Refused | TakenOver] = Ending()
        self._outbox: Outbox[bytes] = Outbox(
            plane.limiter, plane.config, call, ending=self._ending, notice=lambda refused: b""
        )
        self._receiving = Receiving(plane, call, self._session, send=self._outbox.put, close=self._ending)
        self._publishing = Publishing(
            plane, call, self._session, self._receiving, send=self._outbox.put, close=self._ending
        )
        self._subscribing = Subscribing(plane, call, self._session, self._outbox, self._ending)
        self._is_disconnected = False

    async def serve(self) -> Reply:
        """Answer CONNECT and serve until the connection ends. Raises Refused where the gateway ends it."""
        self._require_publishable_will()
        clients, client_id = self._peer.clients, self._session.client_id
        owner = f"{self._call.caller.consumer}\0{self._call.caller.maker}"
        clients.register(owner, client_id, self.leave)
        try:
            return await self._serve()
        finally:
            clients.unregister(owner, client_id, self.leave)

    def leave(self) -> None:
        """End the connection because the same client has connected again. Returns immediately."""
        self._ending(TakenOver())

    def _require_publishable_will(self) -> None:
        """Raise Refused at CONNECT for a will that could not be published."""
        if self._will is not None:
            channel_for(self._plane.snapshot, self._call, self._will.topic, Verb.PUBLISH)

    async def _serve(self) -> Reply:
        self._plane.connections.open(self._call, self._ending).keeps_rights = self._subscribing.keeps_rights
        self._peer.is_accepted = True
        self._peer.watch(self._session.silence_max_s, partial(_fell_silent, self._ending))
        limits = self._session.limits(self._plane.config.mqtt_packet_max_bytes)
        self._peer.write(codec.connack(self._session.version, 0, limits))
        reader = asyncio.create_task(self._read(), name="mqtt reader")
        writer = asyncio.create_task(self._write(), name="mqtt writer")
        try:
            ends: list[asyncio.Future[Any]] = [reader, writer, self._ending.future]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return await self._end(reader, writer)
        finally:
            self._subscribing.stop()
            await stop_tasks(reader, writer)

    # Reading and writing

    async def _read(self) -> None:
        while not self._is_disconnected:
            packet: Packet = await self._peer.next()
            try:
                if isinstance(packet, Publish):
                    await self._publishing.publish(packet)
                else:
                    await self._process(packet)
            except PacketError as fault:
                raise ProtocolViolation.of(fault) from None
            if not self._outbox.has_room():
                await self._outbox.room()

    async def _process(self, packet: Packet) -> None:
        """Process any packet but PUBLISH. Raises Refused, PacketError or TakenOver where it ends the connection."""
        match packet:
            case Ack():
                await self._acknowledged(packet)
            case Ping():
                self._outbox.put(codec.PING_RESPONSE)
            case Subscribe():
                await self._subscribing.subscribe(packet)
                self._publishing.marks_origin = self._subscribing.excludes_own
            case Unsubscribe():
                self._subscribing.unsubscribe(packet)
            case Disconnect():
                self._is_disconnected = True
                if packet.code != WITH_WILL:
                    self._will = None
            case Malformed():
                raise ProtocolViolation(packet.code, packet.detail)
            case _:
                raise ProtocolViolation(PROTOCOL_ERROR, "AUTH is not accepted: no extended authentication is offered")

    async def _acknowledged(self, packet: Ack) -> None:
        if packet.type is Type.PUBACK:
            self._subscribing.acknowledged(packet.packet_id)
        elif packet.type is Type.PUBREL:
            await self._receiving.release(packet.packet_id)

    async def _write(self) -> None:
        while True:
            await self._outbox.filled()
            items = await self._outbox.take()
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._peer.send(b"".join(items))
            except TimeoutError:
                raise Refused(Reason.TOO_SLOW) from None

    # Ending

    async def _end(self, reader: asyncio.Task[None], writer: asyncio.Task[None]) -> Reply:
        """Store and acknowledge what was received, publish the will, and return how the connection ended."""
        ending = self._cause(reader, writer)
        await stop_tasks(reader)
        self._subscribing.stop()
        await self._publishing.finish()
        await self._receiving.finish()
        await self._flush(writer)
        if self._will is not None and not (isinstance(ending, Refused) and ending.reason in LOSES_ITS_WILL):
            await self._publishing.publish_will(self._will)
        if ending is None:
            return Reply(closed_by="client")
        if isinstance(ending, TakenOver):
            self._peer.write(Replies(self._session.connect).taken_over())
            return Reply(closed_by="client", error_class=ErrorClass.CLIENT_GONE.value, close_code=TAKEN_OVER)
        if isinstance(ending, ClientGone):
            return Reply(closed_by="client", error_class=ErrorClass.CLIENT_GONE.value)
        raise ending

    def _cause(self, reader: asyncio.Task[None], writer: asyncio.Task[None]) -> BaseException | None:
        """Return what ended the connection; None after a DISCONNECT of the client."""
        failures = (task.exception() for task in (reader, writer) if task.done())
        return self._ending.reason or next(filter(None, failures), None)

    async def _flush(self, writer: asyncio.Task[None]) -> None:
        """Wait until the last acknowledgements are sent, for at most ``FLUSH_S``."""
        ends_at = asyncio.get_running_loop().time() + FLUSH_S
        while not (self._outbox.is_empty() or writer.done()) and asyncio.get_running_loop().time() < ends_at:
            await asyncio.sleep(0.005)


def _fell_silent(end: Callable[[Refused], None]) -> None:
    end(Refused(Reason.IDLE, "No packet was received within one and a half keep alive intervals."))
