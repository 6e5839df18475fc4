"""The MQTT listener: accepts connections and parses their packets, every wait with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.call import Call, Reply
from gateway.credentials.api_keys import Credential, from_text
from gateway.listening.capacity import Capacity, overloaded
from gateway.listening.listener import Listener as TcpListener
from gateway.listening.listener import listen
from gateway.listening.tcp_connections import TcpConnection
from gateway.peer import ClientGone
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.wire.mqtt import codec
from gateway.wire.mqtt.packets import V311, Connect, Malformed, Packet
from gateway.wire.mqtt.replies import ProtocolViolation, Replies
from gateway.wire.mqtt.session import CLIENT_ID_MAX_CHARS, ConnectedClients

if TYPE_CHECKING:
    from gateway.plane import Plane

logger = logging.getLogger(__name__)

SWEEP_S = 0.5
SWEPT_AT_ONCE = 64
"""Connections swept before others are served: each may have to be refused."""
TURN_BYTES = 8 * 1024
"""Packets of one connection that are parsed before others are served, in bytes: thousands may arrive in one read."""
BAD_METHOD = 0x8C


class Listener:
    """The state that all connections of a listener share."""

    def __init__(self, plane: Plane, capacity: Capacity) -> None:
        self.plane = plane
        self.capacity = capacity
        self.peers: set[MqttPeer] = set()
        self.clients: ConnectedClients = ConnectedClients()

    async def sweep(self) -> None:
        """Enforce deadlines until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = time.monotonic()
            for count, peer in enumerate(list(self.peers), 1):
                if peer in self.peers:
                    peer.sweep(now)
                if count % SWEPT_AT_ONCE == 0:
                    await asyncio.sleep(0)
            self.capacity.sweep(now)


class MqttPeer(asyncio.Protocol):
    """The caller's side of an MQTT connection.

    Packets are parsed as the handler asks for them; when it falls behind, the socket is not read, and TCP delays the
    client.
    """

    def __init__(self, listener: Listener, tcp: TcpConnection) -> None:
        self._listener = listener
        self._tcp = tcp
        self._plane = listener.plane
        self.clients = listener.clients
        self._packet_max_bytes = listener.plane.config.mqtt_packet_max_bytes
        self._parser = codec.Parser(self._packet_max_bytes)
        self._turn_began_at = 0
        """The parsed bytes when others were last served."""
        self._waiter: asyncio.Future[None] | None = None
        self._can_write: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._is_gone = False
        self._is_paused = False
        self._task: asyncio.Task[None] | None = None
        self._began_at = self._heard_at = time.monotonic()
        self._closed_at: float | None = None
        self._silence_max_s: float | None = None
        self._fell_silent: Callable[[], None] | None = None
        self.connect: Connect | None = None
        self.is_accepted = False
        self.ip = tcp.ip

    async def next(self) -> Packet:
        """Return the next packet. Raises ClientGone."""
        while (packet := self._parser.next()) is None:
            if self._is_gone:
                raise ClientGone
            self._resume()
            self._waiter = asyncio.get_running_loop().create_future()
            # Silence counts only while the gateway reads, not while a limit or a slow store delays it.
            self._heard_at = time.monotonic()
            await self._waiter
            self._turn_began_at = self._parser.parsed_bytes
        if self._parser.parsed_bytes - self._turn_began_at > TURN_BYTES:
            self._turn_began_at = self._parser.parsed_bytes
            await asyncio.sleep(0)
        if self._is_paused and self._parser.buffered_bytes < self._packet_max_bytes // 2:
            self._resume()
        return packet

    def write(self, data: bytes) -> None:
        """Send bytes without waiting for the client to read."""
        if data and self._closed_at is None and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    @property
    def can_write_now(self) -> bool:
        """Return whether the connection is open and the client reads: little is unsent."""
        return (
            self._can_write is None
            and self._closed_at is None
            and self._transport is not None
            and not self._transport.is_closing()
        )

    def write_now(self, data: bytes) -> None:
        """Send whole packets; only where :attr:`can_write_now`."""
        assert self._transport is not None, "only an open connection is written to"
        self._transport.write(data)

    async def send(self, data: bytes) -> None:
        """Send bytes; waits while the client does not read. Raises ClientGone."""
        if self._is_gone:
            raise ClientGone
        self.write(data)
        if self._can_write is not None:
            await self._can_write

    def watch(self, silence_max_s: float | None, fell_silent: Callable[[], None]) -> None:
        """Call back when the client has sent nothing for this long while the gateway was reading."""
        self._silence_max_s, self._fell_silent = silence_max_s, fell_silent

    def close(self) -> None:
        """Close once the written bytes are sent and the client has closed too, or after the close timeout.

        What the client still sends is read and dropped: unread input would make TCP reset the connection, and the last
        packets would be lost.
        """
        if self._closed_at is not None or self._transport is None:
            return
        self._closed_at = time.monotonic()
        if not self._transport.is_closing():
            self._resume()
            with contextlib.suppress(OSError):  # reset by the client, which the event loop has not noticed yet
                self._transport.write_eof()

    def sweep(self, now: float) -> None:
        """End what takes too long: a missing CONNECT, a silent client, a close."""
        config = self._plane.config
        if self._closed_at is not None:
            if now - self._closed_at > config.close_timeout_s and self._transport is not None:
                self._transport.abort()
        elif self.connect is None:
            if now - self._began_at > config.mqtt_connect_timeout_s:
                self._never_a_call(Refused(Reason.IDLE, "CONNECT did not arrive in time."))
        elif (
            self._silence_max_s is not None
            and self._fell_silent is not None
            and self._waiter is not None
            and now - self._heard_at > self._silence_max_s
        ):
            self._fell_silent()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._listener.peers.add(self)
        self._tcp.closed_by(self._shed)

    def data_received(self, data: bytes) -> None:
        self._heard_at = time.monotonic()
        if self._closed_at is not None:
            return
        self._parser.feed(data)
        if self.connect is None:
            packet = self._parser.next()
            if packet is None:
                return
            self._first(packet)
        if not self._is_paused and self._parser.buffered_bytes >= self._packet_max_bytes:
            self._is_paused = True
            if self._transport is not None:
                self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_gone = True
        self._tcp.closed()
        self._listener.peers.discard(self)
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._can_write = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._can_write is not None and not self._can_write.done():
            self._can_write.set_result(None)
        self._can_write = None

    def _resume(self) -> None:
        if self._is_paused and self._transport is not None and not self._is_gone:
            self._is_paused = False
            self._transport.resume_reading()

    def _wake(self) -> None:
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None

    def _first(self, packet: Packet) -> None:
        if isinstance(packet, Connect):
            self.connect = packet
            self._tcp.busy()
            self._task = asyncio.get_running_loop().create_task(self._serve(packet))
            return
        assert isinstance(packet, Malformed), "the parser gives CONNECT first"
        broken = ProtocolViolation(packet.code, packet.detail)
        # Bytes that are not MQTT get no MQTT answer; an unknown version gets the first one that has the code.
        is_mqtt = self._parser.version or packet.code == codec.UNSUPPORTED_VERSION
        if is_mqtt:
            self.write(Replies(Connect(self._parser.version or V311, "", True, 0)).connack(broken))
        self._never_a_call(broken)

    def _never_a_call(self, refused: Refused) -> None:
        call = Call(protocol=Protocol.MQTT, address="", ip=self.ip, target="mqtt")
        self._plane.meter.count(call, Reply(refused=refused))
        self.close()

    async def _serve(self, connect: Connect) -> None:
        call = Call(
            protocol=Protocol.MQTT, address="", ip=self.ip, handler="mqtt", target="mqtt", peer=self, tcp=self._tcp
        )
        try:
            if self._plane.draining:
                raise Refused(Reason.DRAINING, retry_after_s=1)
            if (scarce := self._listener.capacity.refusal()) is not None:
                raise scarce
            if len(connect.client_id) > CLIENT_ID_MAX_CHARS:
                raise ProtocolViolation(
                    codec.BAD_CLIENT_ID, f"a client id has at most {CLIENT_ID_MAX_CHARS} characters"
                )
            call.route = self._plane.snapshot.builtin(Protocol.MQTT)
            call.credential = _credential(connect)
        except Refused as refused:
            self._plane.meter.count(call, Reply(refused=refused))
            self.refuse(connect, refused)
            return
        reply = await self._plane.pipeline.run(call)
        if reply.refused is not None:
            self.refuse(connect, reply.refused)
        self.close()

    def _shed(self) -> None:
        """Close because of a ceiling: without an answer before CONNECT, as there is none in MQTT (3.1.4)."""
        if self._transport is None:
            return
        if self.connect is not None and self._closed_at is None:
            self.write(Replies(self.connect).connack(overloaded("connection-ceiling")))
        self._transport.close()

    def refuse(self, connect: Connect, refused: Refused) -> None:
        """Send the refusal as this version and state of the connection allow, and close."""
        answers = Replies(connect)
        self.write(answers.disconnect(refused) if self.is_accepted else answers.connack(refused))
        self.close()


async def serve(
    plane: Plane, listening: socket.socket, capacity: Capacity | None = None
) -> tuple[TcpListener, asyncio.Task[None]]:
    """Start to listen; return the listener and the task that enforces deadlines."""
    capacity = capacity or Capacity(plane.config)
    plane.usage.metrics.registry.register(capacity)
    listener = Listener(plane, capacity)
    accepting = listen(listening, lambda tcp: MqttPeer(listener, tcp), capacity, plane.config)
    return accepting, asyncio.create_task(listener.sweep(), name="mqtt deadlines")


def _credential(connect: Connect) -> Credential | None:
    """Return the credential: the password, or the user name of a client without a password. Raises Refused."""
    if "authentication_method" in connect.properties:
        raise ProtocolViolation(
            BAD_METHOD, "send the key as password; no other method is offered", cause="credential-malformed"
        )
    try:
        shown = connect.password.decode("ascii") if connect.password else connect.username or ""
    except UnicodeDecodeError:
        raise Refused(Reason.UNAUTHENTICATED, cause="credential-malformed") from None
    return from_text(shown) if shown else None
