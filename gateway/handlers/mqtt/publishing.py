"""The PUBLISH packets of one MQTT connection: admitted in order, stored concurrently, acknowledged in order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.call import Call
from gateway.channels.access import channel_for
from gateway.channels.checking import require_utf8
from gateway.channels.publication import Admitted, Publication
from gateway.durable.mqtt_sessions import TakenOver
from gateway.handlers.mqtt.receiving import Receiving
from gateway.log.cloudevents import structured
from gateway.log.event_log import Stored
from gateway.log.expiry import with_interval
from gateway.refusals import Reason, Refused
from gateway.side_thread import INLINE_MAX_BYTES
from gateway.snapshot.right import Verb
from gateway.wire.content_types import essence_of
from gateway.wire.mqtt.packets import V5, Properties, Publish, Will
from gateway.wire.mqtt.replies import Replies
from gateway.wire.mqtt.session import Session
from gateway.wire.strict_json import DEPTH_MAX, parse

if TYPE_CHECKING:
    from gateway.plane import Plane

logger = logging.getLogger(__name__)
T = TypeVar("T")

STORING_MAX = 128
"""Publishes of one connection that may be stored concurrently; at this number the socket is no longer read."""
DELAY_MAX_S = 60.0
"""Longest delay of a rate-limited MQTT 3.1.1 client, which has no way to receive a refusal."""
ORIGIN, RETAIN = "connection", "mqttretain"
"""Event attributes: the publishing connection (set for No Local, 3.8.3.1), and that the event was retained."""
_PREFIX = "ce-"
_BINARY_MODE = {"specversion", "traceparent", "tracestate"}


@dataclass(slots=True, eq=False)
class InFlightPublish:
    """A PUBLISH that has not been acknowledged yet."""

    packet: Publish
    is_settled: bool = False
    refused: Refused | None = None
    task: asyncio.Task[None] | None = None


class Publishing:
    """The publishes of one connection and their acknowledgements."""

    def __init__(
        self,
        plane: Plane,
        call: Call,
        session: Session,
        receiving: Receiving,
        *,
        send: Callable[[bytes], None],
        close: Callable[[Refused | TakenOver], None],
    ) -> None:
        self._plane = plane
        self._call = call
        self._session = session
        self._receiving = receiving
        self._answers = Replies(session.connect)
        self._send = send
        self._close = close
        self._in_flight: deque[InFlightPublish] = deque()
        self._room: asyncio.Future[None] | None = None
        self._storing = 0
        """Publishes whose outcome a callback of the log will report."""
        self._all_stored: asyncio.Future[None] | None = None
        self.marks_origin = False
        """Whether some filter of this connection excludes the connection's own events (No Local, 3.8.3.1)."""

    async def publish(self, packet: Publish) -> None:
        """Admit one PUBLISH and start to store it; returns when the next packet may be read.

        Raises Refused, PacketError or TakenOver where the publish ends the connection.
        """
        connection = self._call.connection
        assert connection is not None, "the connection was opened"
        topic = self._session.topic_of(packet)
        connection.received(len(packet.payload))
        if packet.qos == 2 and not self._session.begin_receiving(packet.packet_id):
            self._repeat(packet)
            return
        in_flight = InFlightPublish(packet)
        try:
            identity = await self._receiving.identity(packet)
            is_clearing = packet.retain and not packet.payload
            if is_clearing:
                clearing = await self._admitted(packet, lambda: self._clear(topic, identity))
            else:
                admitted = await self._admit(topic, packet, identity)
        except Refused as refused:
            connection.refused(refused)
            if self._ends_connection(refused, in_flight):
                raise
            in_flight.is_settled, in_flight.refused = True, refused
            self._in_flight.append(in_flight)
            self._advance()
            return
        self._in_flight.append(in_flight)
        if is_clearing or packet.retain or identity is not None:
            work = clearing if is_clearing else self._store_once(admitted, packet, self._begin_storing(admitted))
            in_flight.task = asyncio.create_task(self._settle(in_flight, work))
        else:
            self._storing += 1
            self._plane.publisher.store_soon(self._call, admitted, partial(self._stored, in_flight))
        if len(self._in_flight) >= STORING_MAX:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def _repeat(self, packet: Publish) -> None:
        """Acknowledge a duplicate on the same connection again, if its first is stored."""
        if self._session.is_stored(packet.packet_id):
            self._in_flight.append(InFlightPublish(packet, is_settled=True))
            self._advance()

    async def finish(self) -> None:
        """Wait until every publish in flight is stored or refused, and acknowledged; storing has its own deadline."""
        tasks = [in_flight.task for in_flight in self._in_flight if in_flight.task is not None]
        if tasks:
            await asyncio.wait(tasks)
        if self._storing:
            self._all_stored = asyncio.get_running_loop().create_future()
            await self._all_stored

    async def publish_will(self, will: Will) -> None:
        """Publish the will of a client that is gone; a refusal is counted, never raised."""
        try:
            publication = await self._publication(will.topic, will.payload, will.properties, _attributes(will.retain))
            await self._apply_policies(will.payload)
            admitted = await self._plane.publisher.admit(self._call, publication)
            stored = await self._plane.publisher.store(self._call, admitted)
            if will.retain:
                await self._retain(admitted, stored)
        except Refused as refused:
            if self._call.connection is not None:
                self._call.connection.refused(refused)

    async def _admit(self, topic: str, packet: Publish, identity: str | None) -> Admitted:
        attributes = _attributes(packet.retain)
        if self.marks_origin and self._call.connection is not None:
            attributes[ORIGIN] = self._call.connection.id
        publication = await self._publication(
            topic, packet.payload, packet.properties, attributes, keeps_invalid=self._keeps_invalid(packet)
        )
        if identity is not None and "id" not in publication.attributes:
            publication = replace(publication, identity=identity)
        return await self._admitted(packet, lambda: self._plane.publisher.admit(self._call, publication))

    async def _publication(self, topic: str, payload: bytes, *arguments: Any, **options: Any) -> Publication:
        if len(payload) <= INLINE_MAX_BYTES:
            return _publication(topic, payload, *arguments, **options)
        work = partial(_publication, topic, payload, *arguments, **options)
        return await self._plane.side_threads.run(self._call.caller.consumer, len(payload), work)

    async def _apply_policies(self, payload: bytes) -> None:
        """Raise Refused where a policy of the connection's route refuses the message."""
        if self._call.route is not None:
            await self._plane.policies.message_in(self._call, payload)

    async def _admitted(self, packet: Publish, admit_once: Callable[[], Awaitable[T]]) -> T:
        """Admit a publish; a rate-limited MQTT 3.1.1 client is delayed by not reading its socket meanwhile.

        So is one that sends again what may have been stored, and must not be told that it was refused.
        """
        is_delayable = self._session.version != V5 or self._is_resent(packet)
        ends_at = time.monotonic() + DELAY_MAX_S
        is_delayed = has_passed_policies = False
        while True:
            try:
                if not has_passed_policies:
                    await self._apply_policies(packet.payload)
                has_passed_policies = True
                return await admit_once()
            except Refused as refused:
                wait_s = refused.retry_after_s or 0.1
                can_wait = is_delayable and refused.reason is Reason.RATE_LIMITED and not refused.fatal
                if not can_wait or time.monotonic() + wait_s > ends_at:
                    raise
                if not is_delayed and self._call.connection is not None:
                    self._call.connection.refused(refused)
                is_delayed = True
                await asyncio.sleep(wait_s)

    def _keeps_invalid(self, packet: Publish) -> bool:
        """Return whether an invalid event is dead-lettered: MQTT 3.1.1 has no negative PUBACK and acknowledges it."""
        return self._session.version != V5 and packet.qos > 0

    async def _clear(self, topic: str, identity: str | None) -> Coroutine[Any, Any, None]:
        """Admit an empty retained PUBLISH: it stores no event and clears the retained one (3.3.1.3)."""
        _, subject = channel_for(self._plane.snapshot, self._call, topic, Verb.PUBLISH)
        await self._plane.limiter.charge(self._call, messages_in=1)
        return self._plane.retained.clear(subject, identity)

    def _begin_storing(self, admitted: Admitted) -> asyncio.Future[Stored | Refused]:
        """Begin to store a publish, before any that arrive later, and return its outcome to come."""
        outcome: asyncio.Future[Stored | Refused] = asyncio.get_running_loop().create_future()
        self._plane.publisher.store_soon(
            self._call, admitted, lambda value: None if outcome.done() else outcome.set_result(value)
        )
        return outcome

    async def _store_once(self, admitted: Admitted, packet: Publish, begun: asyncio.Future[Stored | Refused]) -> None:
        """Store a publish, which may be one of QoS 2 that is sent again, not always with the mark of a duplicate.

        A client that has lost its state uses a packet id that it never released for another event.
        """
        publication = admitted.publication
        stored = await begun
        if isinstance(stored, Refused):
            if stored.cause != "idempotency-key-reused" or publication.identity is None:
                raise stored
            identity = await self._receiving.renew(packet.packet_id)
            admitted = replace(admitted, publication=replace(publication, identity=identity))
            stored = await self._plane.publisher.store(self._call, admitted)
        if packet.retain:
            await self._retain(admitted, stored)

    async def _retain(self, admitted: Admitted, stored: Stored) -> None:
        once = admitted.publication.identity
        await self._plane.retained.retain(admitted.subject, admitted.channel, stored.sequence, once)

    async def _settle(self, in_flight: InFlightPublish, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Refused as refused:
            in_flight.refused = refused
        except TakenOver as taken_over:
            self._close(taken_over)
            return
        except Exception:
            logger.exception("storing failed")
            in_flight.refused = Refused(Reason.INTERNAL)
        self._settled(in_flight)

    def _stored(self, in_flight: InFlightPublish, outcome: Stored | Refused) -> None:
        """Settle a publish, in a callback of the log."""
        if isinstance(outcome, Refused):
            in_flight.refused = outcome
        self._settled(in_flight)
        self._storing -= 1
        if not self._storing and self._all_stored is not None and not self._all_stored.done():
            self._all_stored.set_result(None)

    def _settled(self, in_flight: InFlightPublish) -> None:
        if in_flight.refused is not None and self._call.connection is not None:
            self._call.connection.refused(in_flight.refused)
        in_flight.is_settled = True
        self._advance()

    def _advance(self) -> None:
        """Acknowledge what is settled, in the order in which it was received (4.6)."""
        pending = self._in_flight
        while pending and pending[0].is_settled:
            self._acknowledge(pending.popleft())
        if self._room is not None and len(pending) < STORING_MAX // 2:
            if not self._room.done():
                self._room.set_result(None)
            self._room = None

    def _acknowledge(self, in_flight: InFlightPublish) -> None:
        packet, refused = in_flight.packet, in_flight.refused
        if refused is not None and self._ends_connection(refused, in_flight):
            # Not acknowledged, a client of 3.1.1 publishes it again once it has reconnected.
            self._close(refused)
            return
        if packet.qos == 2:
            if refused is None:
                self._session.mark_stored(packet.packet_id)
            else:
                self._session.release(packet.packet_id)
        if packet.qos:
            self._send(self._answers.ack(packet, refused))

    def _ends_connection(self, refused: Refused, in_flight: InFlightPublish) -> bool:
        """Return whether a refusal ends the connection.

        MQTT 3.1.1 has no negative PUBACK: a publish that is neither stored nor invalid ends it (MQTT-3.3.5-2). So does
        one of QoS 2 that may be stored: a client that has got a negative PUBREC would publish its event once more.
        """
        if self._session.version != V5:
            return refused.fatal or refused.reason is not Reason.INVALID_PAYLOAD
        may_be_stored = self._is_resent(in_flight.packet) or (self._is_kept(in_flight.packet) and in_flight.task)
        return refused.fatal or (bool(may_be_stored) and refused.reason in (Reason.OVERLOADED, Reason.RATE_LIMITED))

    def _is_kept(self, packet: Publish) -> bool:
        """Return whether a publish is recognised when it is sent again on another connection."""
        return packet.qos == 2 and self._session.is_lasting

    def _is_resent(self, packet: Publish) -> bool:
        return self._is_kept(packet) and packet.is_duplicate


def _attributes(is_retained: bool) -> dict[str, str]:
    return {RETAIN: "1"} if is_retained else {}


def _shortened(attributes: dict[str, str], properties: Properties) -> dict[str, str]:
    """Return the attributes with the expiry of the packet, if it has one and theirs is not earlier."""
    interval_s = properties.get("message_expiry")
    return attributes if interval_s is None else with_interval(attributes, interval_s, time.time())


def _publication(
    topic: str,
    payload: bytes,
    properties: Properties,
    attributes: dict[str, str] | None = None,
    *,
    keeps_invalid: bool = False,
) -> Publication:
    """Return a PUBLISH as a publication. Raises Refused for a malformed CloudEvent in structured mode."""
    attributes = dict(attributes or {})
    if not properties:
        return Publication(topic, payload, attributes=attributes, keeps_invalid=keeps_invalid)
    user: dict[str, Any] = dict(properties.get("user", ()))
    is_binary = "specversion" in user
    for name, value in user.items():
        if name.startswith(_PREFIX):
            attributes[name[len(_PREFIX) :]] = value
        elif is_binary and name not in _BINARY_MODE:
            attributes[name] = value
    if "tracestate" in user:
        attributes["tracestate"] = user["tracestate"]
    attributes.pop("specversion", None)
    if properties.get("payload_format"):
        require_utf8(payload)
    content_type = properties.get("content_type") or ""
    if essence_of(content_type) == "application/cloudevents+json":
        content = structured(parse(payload, depth_max=DEPTH_MAX + 1))
        return Publication(
            topic,
            content.data,
            content.content_type,
            traceparent=user.get("traceparent"),
            attributes=_shortened(content.attributes | attributes, properties),
        )
    return Publication(
        topic,
        payload,
        content_type,
        traceparent=user.get("traceparent"),
        attributes=_shortened(attributes, properties),
        keeps_invalid=keeps_invalid,
    )
