"""Serves one MQTT connection: publishes go into channels, subscriptions are fed from them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from gateway.authenticate import allowed, require
from gateway.call import Call, ClientGone, Principal, Reply, Right, Verb
from gateway.event import Event
from gateway.hub import Listening
from gateway.outbox import SEND_TIMEOUT_S, Outbox
from gateway.protocols.mqtt import codec
from gateway.protocols.mqtt.packets import (
    V5,
    Ack,
    Auth,
    Connect,
    Disconnect,
    Malformed,
    Packet,
    Ping,
    Publish,
    Subscribe,
    Type,
    Unsubscribe,
    Wanted,
    Will,
)
from gateway.protocols.mqtt.session import QOS_GRANTED_MAX, SUBSCRIPTIONS_MAX, Session
from gateway.protocols.mqtt.wire import TOO_LARGE, Fault
from gateway.publish import Admitted, Publication, admit, channel_for, publish, store
from gateway.refusals import ErrorClass, Reason, Refused
from gateway.refusals import Packet as RefusalPacket
from gateway.subjects import AddressError, filters_of, matches, overlap

if TYPE_CHECKING:
    from gateway.plane import Plane

STORING_MAX = 128
"""Publishes of one connection on their way to the log; past it the socket is not read."""
NO_SUBSCRIPTION_EXISTED = 0x11
FAILURE_311 = 0x80
WITH_WILL = 0x04
LOOK_S = 1.0
CLOSES_311 = frozenset({Reason.FORBIDDEN, Reason.NOT_FOUND, Reason.INVALID_REQUEST, Reason.TOO_LARGE})
"""MQTT 3.1.1 has no negative PUBACK: what can never be stored ends the connection (MQTT-3.3.5-2)."""


async def handle_mqtt(plane: Plane, call: Call) -> Reply:
    """Serve an authenticated, limited connection until it ends."""
    return await MqttConnection(plane, call).serve()


class MqttConnection:
    """One MQTT connection of one consumer."""

    def __init__(self, plane: Plane, call: Call) -> None:
        self._plane = plane
        self._call = call
        self._peer = call.peer
        connect: Connect = call.peer.connect
        self._session = Session(connect)
        self._will: Will | None = connect.will
        self._outbox: Outbox[bytes] = Outbox(plane, call, overflowed=self.close, say=lambda refused: b"")
        self._listenings: dict[str, list[Listening]] = {}
        self._storing: asyncio.Queue[tuple[Publish, asyncio.Task[Any]]] = asyncio.Queue(STORING_MAX)
        self._ending: asyncio.Future[Refused] = asyncio.get_running_loop().create_future()
        self._has_left = False

    async def serve(self) -> Reply:
        """Accept and serve. Raises Refused for what ends it from our side."""
        self._check_will()
        self._connection = self._plane.connections.open(self._call, self.close)
        self._peer.is_accepted = True
        told = self._session.limits(self._plane.config.mqtt_packet_max_bytes)
        self._peer.write(codec.connack(self._session.version, 0, told))
        tasks = [
            asyncio.create_task(self._read(), name="mqtt reader"),
            asyncio.create_task(self._write(), name="mqtt writer"),
            asyncio.create_task(self._acknowledge(), name="mqtt acknowledger"),
            asyncio.create_task(self._look(), name="mqtt keep alive"),
        ]
        try:
            await asyncio.wait([*tasks, self._ending], return_when=asyncio.FIRST_COMPLETED)
            return await self._end(tasks)
        finally:
            for listening in [one for all_ in self._listenings.values() for one in all_]:
                listening.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self, refused: Refused) -> None:
        """End the connection for this reason; returns at once."""
        if not self._ending.done():
            self._ending.set_result(refused)

    def _check_will(self) -> None:
        """Refuse at CONNECT a will that could not be published."""
        if self._will is not None:
            channel_for(self._plane, self._call, self._will.topic, Verb.PUBLISH)

    # Reading

    async def _read(self) -> None:
        handlers = {
            Publish: self._publish,
            Ack: self._acked,
            Subscribe: self._subscribe,
            Unsubscribe: self._unsubscribe,
            Ping: self._ping,
        }
        while True:
            packet: Packet = await self._peer.next()
            if isinstance(packet, Disconnect):
                self._has_left = packet.code != WITH_WILL
                return
            if isinstance(packet, Malformed):
                reason = Reason.TOO_LARGE if packet.code == TOO_LARGE else Reason.INVALID_REQUEST
                raise Refused(reason, packet.detail, cause="malformed-packet")
            if isinstance(packet, Auth | Connect):
                raise Refused(Reason.INVALID_REQUEST, "AUTH is not offered.", cause="malformed-packet")
            try:
                await handlers[type(packet)](packet)  # type: ignore[operator]
            except Fault as fault:
                raise Refused(Reason.INVALID_REQUEST, str(fault), cause="malformed-packet") from None
            if not self._outbox.has_room():
                await self._outbox.room()

    async def _publish(self, packet: Publish) -> None:
        topic = self._session.topic_of(packet)
        self._connection.received(len(packet.payload))
        if packet.qos == 2:
            if packet.packet_id in self._session.received:
                await self._storing.put((packet, asyncio.create_task(_nothing())))
                return
            self._session.received.add(packet.packet_id)
        try:
            admitted = await self._admit(topic, packet)
        except Refused as refused:
            await self._refuse(packet, refused)
            return
        task = asyncio.create_task(store(self._plane, self._call, admitted))
        await self._storing.put((packet, task))

    async def _admit(self, topic: str, packet: Publish) -> Admitted:
        """Admit a publish; MQTT 3.1.1 cannot be told to wait, so it is made to (reading stops meanwhile)."""
        publication = _publication(topic, packet)
        while True:
            try:
                return await admit(self._plane, self._call, publication)
            except Refused as refused:
                if self._session.version == V5 or refused.reason is not Reason.RATE_LIMITED or refused.fatal:
                    raise
                self._connection.refused(refused)
                await asyncio.sleep(refused.retry_after_s or 0.1)

    async def _refuse(self, packet: Publish, refused: Refused) -> None:
        """Refuse one publish, in the order of the acknowledgements."""
        self._connection.refused(refused)
        is_deadly = refused.fatal or (self._session.version != V5 and refused.reason in CLOSES_311)
        if is_deadly:
            raise refused
        await self._storing.put((packet, asyncio.create_task(_failing(refused))))

    async def _acknowledge(self) -> None:
        """Acknowledge publishes in the order in which they came (4.6), once they are stored."""
        while True:
            packet, task = await self._storing.get()
            code, detail = 0, ""
            try:
                await task
            except Refused as refused:
                if self._session.version != V5 and refused.reason is not Reason.INVALID_PAYLOAD:
                    # 3.1.1 knows no refusal: without an acknowledgement the client publishes again.
                    raise
                code, detail = refused.row.mqtt5.get(RefusalPacket.PUBACK, 0x80), refused.detail
                self._session.received.discard(packet.packet_id)
            if packet.qos:
                type_ = Type.PUBACK if packet.qos == 1 else Type.PUBREC
                ack = Ack(type_, packet.packet_id, code if self._session.version == V5 else 0)
                self._outbox.put(codec.ack(self._session.version, ack, detail))

    async def _acked(self, packet: Ack) -> None:
        if packet.type is Type.PUBREL:
            self._session.received.discard(packet.packet_id)
            self._outbox.put(codec.ack(self._session.version, Ack(Type.PUBCOMP, packet.packet_id)))
        elif packet.type is Type.PUBACK:
            self._session.in_flight.discard(packet.packet_id)
            while self._session.held and self._session.can_send():
                self._send_once_acknowledged(self._session.held.popleft())

    async def _ping(self, packet: Ping) -> None:
        self._outbox.put(codec.PING_RESPONSE)

    async def _subscribe(self, packet: Subscribe) -> None:
        codes = [await self._subscribe_one(wanted) for wanted in packet.wanted]
        self._outbox.put(codec.suback(self._session.version, packet.packet_id, codes))

    async def _subscribe_one(self, wanted: Wanted) -> int:
        try:
            subjects = self._subjects_of(wanted.filter)
            if wanted.filter not in self._listenings and len(self._listenings) >= SUBSCRIPTIONS_MAX:
                raise Refused(Reason.INVALID_REQUEST, f"A connection holds at most {SUBSCRIPTIONS_MAX} subscriptions.")
            granted = replace(wanted, qos=min(wanted.qos, QOS_GRANTED_MAX))
            self._drop(wanted.filter)
            self._session.subscriptions[wanted.filter] = granted
            deliver = self._delivery(granted)
            self._listenings[wanted.filter] = [await self._plane.hub.hear(subject, deliver) for subject in subjects]
        except Refused as refused:
            self._connection.refused(refused)
            return refused.row.mqtt5.get(RefusalPacket.SUBACK, 0x80) if self._session.version == V5 else FAILURE_311
        return granted.qos

    def _subjects_of(self, filter_: str) -> tuple[str, ...]:
        """Give the subjects of a filter that may be read. Raises Refused."""
        if filter_.startswith("$share/"):
            raise Refused(Reason.INVALID_REQUEST, "Shared subscriptions are not offered.")
        try:
            subjects = filters_of(filter_)
        except AddressError as error:
            raise Refused(Reason.INVALID_REQUEST, f"{error}.", cause="invalid-address") from None
        if "+" not in filter_ and "#" not in filter_:
            channel_for(self._plane, self._call, filter_, Verb.SUBSCRIBE)
            return subjects
        met = [
            channel
            for channel in self._plane.snapshot.channels()
            if any(overlap(subject, channel.subject) for subject in subjects)
            and (not channel.protocols or "mqtt" in channel.protocols)
        ]
        if not met:
            raise Refused(Reason.NOT_FOUND, f"There is no channel that {filter_} meets.", cause="unknown-channel")
        if not any(_may_read_some(self._call.who, channel.address, subjects) for channel in met):
            require(self._call.who, Right(Verb.SUBSCRIBE, filter_))
        return subjects

    def _delivery(self, wanted: Wanted) -> Any:
        call, session, put = self._call, self._session, self._outbox.put_event
        own_source = f"/consumers/{call.who.consumer}"

        def deliver(event: Event) -> None:
            if not allowed(call.who, Right(Verb.SUBSCRIBE, event.address)):
                return
            if wanted.no_local and event.source == own_source:
                return
            if wanted.qos == 0:
                data = _rendered(event, session.version)
                put(data, len(event.data))
            else:
                packet = replace(_packet_of(event, session.version), qos=1)
                if session.can_send():
                    self._send_once_acknowledged(packet)
                elif len(session.held) < self._plane.config.send_buffer_max_events:
                    session.held.append(packet)
                else:
                    self.close(Refused(Reason.TOO_SLOW))

        return deliver

    def _send_once_acknowledged(self, packet: Publish) -> None:
        packet = replace(packet, packet_id=self._session.next_id())
        self._outbox.put_event(codec.publish(self._session.version, packet), len(packet.payload))

    async def _unsubscribe(self, packet: Unsubscribe) -> None:
        codes = []
        for filter_ in packet.filters:
            codes.append(0 if filter_ in self._session.subscriptions else NO_SUBSCRIPTION_EXISTED)
            self._drop(filter_)
        self._outbox.put(codec.unsuback(self._session.version, packet.packet_id, codes))

    def _drop(self, filter_: str) -> None:
        self._session.subscriptions.pop(filter_, None)
        for listening in self._listenings.pop(filter_, []):
            listening.stop()

    # Writing

    async def _write(self) -> None:
        while True:
            items = await self._outbox.take()
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._peer.send(b"".join(items))
            except TimeoutError:
                raise Refused(Reason.TOO_SLOW) from None

    async def _look(self) -> None:
        """Notice a client that has gone silent (3.1.2.10)."""
        silence_max_s = self._session.silence_max_s
        while True:
            await asyncio.sleep(LOOK_S)
            if silence_max_s is not None and time.monotonic() - self._peer.heard_at > silence_max_s:
                raise Refused(Reason.IDLE, "Nothing came within one and a half keep alive intervals.")

    # Ending

    async def _end(self, tasks: list[asyncio.Task[None]]) -> Reply:
        failure: BaseException | None = self._ending.result() if self._ending.done() else None
        if failure is None:
            failure = next((task.exception() for task in tasks if task.done() and task.exception() is not None), None)
        if self._has_left and failure is None:
            await self._finish_storing()
            return Reply(closed_by="client")
        if self._will is not None:
            await self._publish_will(self._will)
        if failure is None or isinstance(failure, ClientGone):
            return Reply(closed_by="client", error_class=ErrorClass.CLIENT_GONE.value)
        raise failure

    async def _finish_storing(self) -> None:
        """What a client sent before its DISCONNECT is stored, though nobody waits for the acknowledgement."""
        while not self._storing.empty():
            _, task = self._storing.get_nowait()
            await asyncio.gather(task, return_exceptions=True)

    async def _publish_will(self, will: Will) -> None:
        try:
            await publish(self._plane, self._call, Publication(address=will.topic, data=will.payload))
        except Refused as refused:
            self._connection.refused(refused)


def _may_read_some(who: Principal, template: str, subjects: tuple[str, ...]) -> bool:
    """Say whether something that the subjects match may be read: by a scope for the channel, or for one address."""
    if allowed(who, Right(Verb.SUBSCRIBE, template)):
        return True
    prefix = f"{Verb.SUBSCRIBE}:"
    for scope in who.scopes:
        named = scope.removeprefix(prefix)
        if scope.startswith(prefix) and "*" in named:
            return True
        try:
            named_subjects = filters_of(named) if scope.startswith(prefix) else ()
        except AddressError:
            continue
        if any(matches(subject, named_subject) for subject in subjects for named_subject in named_subjects):
            return True
    return False


def _publication(topic: str, packet: Publish) -> Publication:
    properties = packet.properties
    user = dict(properties.get("user", ()))
    return Publication(
        address=topic,
        data=packet.payload,
        content_type=properties.get("content_type") or "application/json",
        traceparent=user.get("traceparent"),
        attributes={name[3:]: value for name, value in user.items() if name.startswith("ce-")},
    )


def _packet_of(event: Event, version: int) -> Publish:
    if version != V5:
        return Publish(event.address, event.data)
    user = [("id", str(event.id)), ("time", event.time)]
    if event.traceparent:
        user.append(("traceparent", event.traceparent))
    return Publish(event.address, event.data, properties={"content_type": event.content_type, "user": user})


@lru_cache(maxsize=512)
def _rendered(event: Event, version: int) -> bytes:
    """Write an event as a QoS 0 PUBLISH, once for all its readers."""
    return codec.publish(version, _packet_of(event, version))


async def _nothing() -> None:
    """Stand in for a publish that is stored already."""


async def _failing(refused: Refused) -> None:
    raise refused
