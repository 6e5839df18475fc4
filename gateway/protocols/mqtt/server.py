"""The MQTT listener: sockets in, packets out, every wait with an end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections import deque
from typing import TYPE_CHECKING

from gateway.call import Call, ClientGone, Credential, Protocol, Reply
from gateway.credentials import from_text
from gateway.meter import meter
from gateway.pipeline import run as run_call
from gateway.protocols.mqtt import codec
from gateway.protocols.mqtt.packets import V5, Connect, Malformed, Packet
from gateway.protocols.mqtt.wire import TOO_LARGE
from gateway.refusals import Packet as RefusalPacket
from gateway.refusals import Reason, Refused

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.plane import Plane

logger = logging.getLogger(__name__)

WAITING_MAX = 100
"""Packets that may wait to be handled; then the socket is not read, and TCP tells the client to wait."""
SWEEP_S = 0.5
CONNACK_311 = {codec.UNSUPPORTED_VERSION: 1, codec.BAD_CLIENT_ID: 2}


class MqttPeer(asyncio.Protocol):
    """The caller's side of an MQTT connection, as the listener lends it to the handler."""

    def __init__(self, plane: Plane, open_peers: set[MqttPeer]) -> None:
        self._plane = plane
        self._peers = open_peers
        self._parser = codec.Parser(plane.config.mqtt_packet_max_bytes)
        self._packets: deque[Packet] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._can_write: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._is_gone = False
        self._is_paused = False
        self._task: asyncio.Task[None] | None = None
        self._began_at = time.monotonic()
        self.heard_at = self._began_at
        self.connect: Connect | None = None
        self.is_accepted = False
        self.ip = "0.0.0.0"

    @property
    def version(self) -> int:
        """Protocol level of the client, 5 until it is known."""
        return self._parser.version or V5

    async def next(self) -> Packet:
        """Give the next packet. Raises ClientGone."""
        while not self._packets:
            if self._is_gone:
                raise ClientGone
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        packet = self._packets.popleft()
        if self._is_paused and len(self._packets) < WAITING_MAX // 2 and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return packet

    def write(self, data: bytes) -> None:
        """Send bytes, however long the client takes to read them."""
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def send(self, data: bytes) -> None:
        """Send bytes; waits while the client does not read. Raises ClientGone."""
        if self._is_gone:
            raise ClientGone
        self.write(data)
        if self._can_write is not None:
            await self._can_write

    def close(self) -> None:
        """Hang up, after what was written is sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Hang up at once."""
        if self._transport is not None:
            self._transport.abort()

    def sweep(self, now: float) -> None:
        """Close a connection whose CONNECT is not there in time."""
        if self.connect is None and now - self._began_at > self._plane.config.mqtt_connect_timeout_s:
            self._never_a_call(Refused(Reason.IDLE, "CONNECT did not come in time."))
            self.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self.ip = (transport.get_extra_info("peername") or ("0.0.0.0",))[0]
        self._peers.add(self)

    def data_received(self, data: bytes) -> None:
        self.heard_at = time.monotonic()
        for packet in self._parser.feed(data):
            if self.connect is None:
                self._first(packet)
            else:
                self._packets.append(packet)
        if len(self._packets) > WAITING_MAX and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        if self._packets:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_gone = True
        self._peers.discard(self)
        self._wake()
        if self._can_write is not None and not self._can_write.done():
            self._can_write.set_result(None)

    def pause_writing(self) -> None:
        self._can_write = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._can_write is not None and not self._can_write.done():
            self._can_write.set_result(None)
        self._can_write = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _first(self, packet: Packet) -> None:
        if isinstance(packet, Connect):
            self.connect = packet
            self._task = asyncio.get_running_loop().create_task(self._serve(packet))
            return
        assert isinstance(packet, Malformed), "the parser gives CONNECT first"
        reason = Reason.TOO_LARGE if packet.code == TOO_LARGE else Reason.INVALID_REQUEST
        self._never_a_call(Refused(reason, packet.detail, cause="malformed-packet"))
        if self._parser.version == V5:
            self.write(codec.connack(V5, packet.code, {"reason": packet.detail}))
        elif packet.code in CONNACK_311:
            self.write(codec.connack(codec.V311, CONNACK_311[packet.code]))
        self.close()

    def _never_a_call(self, refused: Refused) -> None:
        call = Call(protocol=Protocol.MQTT, address="", ip=self.ip)
        meter(self._plane, call, Reply(refused=refused))

    async def _serve(self, connect: Connect) -> None:
        call = Call(protocol=Protocol.MQTT, address="", ip=self.ip, handler="mqtt", target="mqtt", peer=self)
        try:
            if self._plane.draining:
                raise Refused(Reason.DRAINING, retry_after_s=1)
            call.credential = _credential(connect)
        except Refused as refused:
            meter(self._plane, call, Reply(refused=refused))
            self.refuse(refused)
            return
        reply = await run_call(self._plane, call)
        if reply.refused is not None:
            self.refuse(reply.refused)
        self.close()

    def refuse(self, refused: Refused) -> None:
        """Say no as this version and moment can (the table of refusals), and hang up."""
        wants_words = self.connect is None or self.connect.properties.get("request_problem", 1)
        reason = refused.detail if wants_words else ""
        user = [("reason", refused.reason.value)]
        if refused.retry_after_s is not None:
            user.append(("retry_after_s", f"{refused.retry_after_s:.3f}"))
        row = refused.row
        if self.is_accepted:
            code = row.mqtt5.get(RefusalPacket.DISCONNECT, 0x80)
            self.write(codec.disconnect(self.version, code, reason, user if wants_words else None))
        elif self.version == V5:
            told = {"reason": reason, "user": user} if wants_words else {}
            self.write(codec.connack(V5, row.mqtt5.get(RefusalPacket.CONNACK, 0x80), told))
        else:
            self.write(codec.connack(self.version, row.connack))
        self.close()


async def run(config: Config, listening: socket.socket) -> None:
    """Serve MQTT on a listening socket until SIGTERM, then drain."""
    from gateway.plane import Plane

    plane = await Plane.start(config)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server, sweeper = await serve(plane, listening)
    await stop.wait()
    server.close()
    await plane.stop()
    sweeper.cancel()


async def serve(plane: Plane, listening: socket.socket) -> tuple[asyncio.Server, asyncio.Task[None]]:
    """Listen. Gives the server, and the task that looks after deadlines."""
    peers: set[MqttPeer] = set()
    server = await asyncio.get_running_loop().create_server(
        lambda: MqttPeer(plane, peers), sock=listening, backlog=4096
    )
    return server, asyncio.create_task(_sweep(peers), name="mqtt deadlines")


async def _sweep(peers: set[MqttPeer]) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        now = time.monotonic()
        for peer in list(peers):
            peer.sweep(now)


def _credential(connect: Connect) -> Credential | None:
    """Find the key: the password, or the user name of a client that sends no password. Raises Refused."""
    if "authentication_method" in connect.properties:
        raise Refused(Reason.UNAUTHENTICATED, "Send the key as password; no other method is offered.")
    try:
        shown = connect.password.decode("ascii") if connect.password else connect.username or ""
    except UnicodeDecodeError:
        raise Refused(Reason.UNAUTHENTICATED, cause="credential-malformed") from None
    return from_text(shown) if shown else None
