"""The PUBLISH packets of one MQTT connection: admitted in order, stored concurrently, acknowledged in order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.call import Call
from gateway.channels.access import channel_for
from gateway.channels.checking import require_utf8
from gateway.channels.publication import Admitted, Publication
from gateway.log.cloudevents import structured
from gateway.log.event_log import DEADLINE_S
from gateway.log.expiry import with_interval
from gateway.log.unavailable import log_unavailable
from gateway.refusals import Reason, Refused
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
        *,
        send: Callable[[bytes], None],
        close: Callable[[Refused], None],
    ) -> None:
        self._plane = plane
        self._call = call
        self._session = session
        self._answers = Replies(session.connect)
        self._send = send
        self._close = close
        self._in_flight: deque[InFlightPublish] = deque()
        self._room: asyncio.Future[None] | None = None
        self.marks_origin = False
        """Whether some filter of this connection excludes the connection's own events (No Local, 3.8.3.1)."""

    async def publish(self, packet: Publish) -> None:
        """Admit one PUBLISH and start to store it; returns when the next packet may be read.

        Raises Refused or PacketError where the publish ends the connection.
        """
        connection = self._call.connection
        assert connection is not None, "the connection was opened"
        topic = self._session.topic_of(packet)
        connection.received(len(packet.payload))
        is_new = packet.qos < 2 or self._session.begin_receiving(packet.packet_id, is_duplicate=packet.is_duplicate)
        if not is_new:
            self._repeat(packet)
            return
        in_flight = InFlightPublish(packet)
        is_clearing = packet.retain and not packet.payload
        try:
            if is_clearing:
                work = await self._admitted(packet.payload, lambda: self._clear(topic))
            else:
                work = self._store(await self._admit(topic, packet), packet.retain)
        except Refused as refused:
            connection.refused(refused)
            if self._ends_connection(refused):
                raise
            in_flight.is_settled, in_flight.refused = True, refused
            self._in_flight.append(in_flight)
            self._advance()
            return
        self._in_flight.append(in_flight)
        in_flight.task = asyncio.create_task(self._settle(in_flight, work))
        if len(self._in_flight) >= STORING_MAX:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def _repeat(self, packet: Publish) -> None:
        """Acknowledge a duplicate once the first is stored, which an earlier connection may still be doing."""
        if self._session.is_stored(packet.packet_id):
            self._in_flight.append(InFlightPublish(packet, is_settled=True))
            self._advance()
        elif all(in_flight.packet.packet_id != packet.packet_id for in_flight in self._in_flight):
            in_flight = InFlightPublish(packet)
            self._in_flight.append(in_flight)
            in_flight.task = asyncio.create_task(self._settle(in_flight, self._stored_earlier(packet.packet_id)))

    async def _stored_earlier(self, packet_id: int) -> None:
        """Wait until an earlier connection has stored a publish. Raises Refused if it did not."""
        ends_at = time.monotonic() + DEADLINE_S
        while self._session.is_received(packet_id) and not self._session.is_stored(packet_id):
            if time.monotonic() > ends_at:
                self._session.release(packet_id)
            await asyncio.sleep(0.02)
        if not self._session.is_stored(packet_id):
            raise log_unavailable()

    async def finish(self) -> None:
        """Wait until every publish in flight is stored or refused, and acknowledged; storing has its own deadline."""
        tasks = [in_flight.task for in_flight in self._in_flight if in_flight.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def publish_will(self, will: Will) -> None:
        """Publish the will of a client that is gone; a refusal is counted, never raised."""
        try:
            publication = await self._publication(will.topic, will.payload, will.properties, _attributes(will.retain))
            await self._apply_policies(will.payload)
            await self._store(await self._plane.publisher.admit(self._call, publication), will.retain)
        except Refused as refused:
            if self._call.connection is not None:
                self._call.connection.refused(refused)

    async def _admit(self, topic: str, packet: Publish) -> Admitted:
        attributes = _attributes(packet.retain)
        if self.marks_origin and self._call.connection is not None:
            attributes[ORIGIN] = self._call.connection.id
        publication = await self._publication(
            topic, packet.payload, packet.properties, attributes, keeps_invalid=self._keeps_invalid(packet)
        )
        return await self._admitted(packet.payload, lambda: self._plane.publisher.admit(self._call, publication))

    async def _publication(self, topic: str, payload: bytes, *arguments: Any, **options: Any) -> Publication:
        work = partial(_publication, topic, payload, *arguments, **options)
        return await self._plane.side_threads.run(self._call.caller.consumer, len(payload), work)

    async def _apply_policies(self, payload: bytes) -> None:
        """Raise Refused where a policy of the connection's route refuses the message."""
        if self._call.route is not None:
            await self._plane.policies.message_in(self._call, payload)

    async def _admitted(self, payload: bytes, admit_once: Callable[[], Awaitable[T]]) -> T:
        """Admit a publish; a rate-limited MQTT 3.1.1 client is delayed by not reading its socket meanwhile."""
        ends_at = time.monotonic() + DELAY_MAX_S
        is_delayed = has_passed_policies = False
        while True:
            try:
                if not has_passed_policies:
                    await self._apply_policies(payload)
                has_passed_policies = True
                return await admit_once()
            except Refused as refused:
                wait_s = refused.retry_after_s or 0.1
                can_wait = self._session.version != V5 and refused.reason is Reason.RATE_LIMITED and not refused.fatal
                if not can_wait or time.monotonic() + wait_s > ends_at:
                    raise
                if not is_delayed and self._call.connection is not None:
                    self._call.connection.refused(refused)
                is_delayed = True
                await asyncio.sleep(wait_s)

    def _keeps_invalid(self, packet: Publish) -> bool:
        """Return whether an invalid event is dead-lettered: MQTT 3.1.1 has no negative PUBACK and acknowledges it."""
        return self._session.version != V5 and packet.qos > 0

    async def _clear(self, topic: str) -> Coroutine[Any, Any, None]:
        """Admit an empty retained PUBLISH: it stores no event and clears the retained one (3.3.1.3)."""
        _, subject = channel_for(self._plane.snapshot, self._call, topic, Verb.PUBLISH)
        await self._plane.limiter.charge(self._call, messages_in=1)
        return self._plane.retained.clear(subject)

    async def _store(self, admitted: Admitted, is_retained: bool) -> None:
        stored = await self._plane.publisher.store(self._call, admitted)
        if is_retained:
            await self._plane.retained.retain(admitted.subject, admitted.channel, stored.sequence)

    async def _settle(self, in_flight: InFlightPublish, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Refused as refused:
            in_flight.refused = refused
        except Exception:
            logger.exception("storing failed")
            in_flight.refused = Refused(Reason.INTERNAL)
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
        if refused is not None and self._ends_connection(refused):
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

    def _ends_connection(self, refused: Refused) -> bool:
        """Return whether a refusal ends the connection.

        MQTT 3.1.1 has no negative PUBACK: a publish that is neither stored nor invalid ends it (MQTT-3.3.5-2).
        """
        return refused.fatal or (self._session.version != V5 and refused.reason is not Reason.INVALID_PAYLOAD)


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
