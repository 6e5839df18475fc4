"""Takes one MQTT connection's publishes: admitted in order, many on their way to the log, acknowledged in order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.call import Call
from gateway.channels.access import channel_for
from gateway.channels.publication import Admitted, Publication
from gateway.log.cloudevents import structured
from gateway.policies.messages import judged
from gateway.refusals import Reason, Refused
from gateway.snapshot.right import Verb
from gateway.wire.mqtt.answers import Answers
from gateway.wire.mqtt.packets import V5, Properties, Publish, Will
from gateway.wire.mqtt.session import Session
from gateway.wire.strict_json import DEPTH_MAX, parse

if TYPE_CHECKING:
    from gateway.plane import Plane

logger = logging.getLogger(__name__)
T = TypeVar("T")

STORING_MAX = 128
"""Publishes of one connection on their way to the log; past it the socket is not read."""
DELAY_MAX_S = 60.0
"""MQTT 3.1.1 cannot be told that a limit was met: it is made to wait, so long at most."""
ORIGIN, RETAIN = "connection", "mqttretain"
"""Attributes: which connection an event came from, where that must not get it back; that it was to be retained."""
_PREFIX = "ce-"
_BINARY_MODE = {"specversion", "traceparent", "tracestate"}


@dataclass(slots=True, eq=False)
class InFlightPublish:
    """A publish that is not acknowledged yet."""

    packet: Publish
    is_over: bool = False
    refused: Refused | None = None
    task: asyncio.Task[None] | None = None


class Publishing:
    """One connection's publishes, and how it is told what became of them."""

    def __init__(
        self,
        plane: Plane,
        call: Call,
        session: Session,
        *,
        say: Callable[[bytes], None],
        close: Callable[[Refused], None],
    ) -> None:
        self._plane = plane
        self._call = call
        self._session = session
        self._answers = Answers(session.connect)
        self._say = say
        self._close = close
        self._in_flight: deque[InFlightPublish] = deque()
        self._room: asyncio.Future[None] | None = None
        self.marks_origin = False
        """A subscription of this connection is not to get its own events back."""

    async def take(self, packet: Publish) -> None:
        """Take one publish; returns when the next may be read. Raises Refused or Fault where it ends the connection."""
        connection = self._call.connection
        assert connection is not None, "the connection was opened"
        topic = self._session.topic_of(packet)
        connection.received(len(packet.payload))
        if packet.qos == 2 and not self._session.begins(packet.packet_id):
            # A duplicate: while the first is on its way to the log, its acknowledgement will be for both.
            if self._session.is_stored(packet.packet_id):
                self._in_flight.append(InFlightPublish(packet, is_over=True))
                self._advance()
            return
        in_flight = InFlightPublish(packet)
        is_clearing = packet.retain and not packet.payload
        try:
            if is_clearing:
                work = await self._in_time(packet.payload, lambda: self._clear(topic))
            else:
                work = self._keep(await self._admit(topic, packet), packet.retain)
        except Refused as refused:
            connection.refused(refused)
            if self._is_deadly(refused):
                raise
            in_flight.is_over, in_flight.refused = True, refused
            self._in_flight.append(in_flight)
            self._advance()
            return
        self._in_flight.append(in_flight)
        in_flight.task = asyncio.create_task(self._do(in_flight, work))
        if len(self._in_flight) >= STORING_MAX:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    async def finish(self) -> None:
        """Wait until what was taken is stored or refused, and acknowledged: each has its own deadline."""
        tasks = [in_flight.task for in_flight in self._in_flight if in_flight.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def publish_will(self, will: Will) -> None:
        """Publish what a client left to be published when it is gone."""
        try:
            publication = _publication(will.topic, will.payload, will.properties, _marks(will.retain))
            await self._judge(will.payload)
            await self._keep(await self._plane.publisher.admit(self._call, publication), will.retain)
        except Refused as refused:
            if self._call.connection is not None:
                self._call.connection.refused(refused)

    async def _admit(self, topic: str, packet: Publish) -> Admitted:
        attributes = _marks(packet.retain)
        if self.marks_origin and self._call.connection is not None:
            attributes[ORIGIN] = self._call.connection.id
        publication = _publication(topic, packet.payload, packet.properties, attributes, keeps=self._keeps(packet))
        return await self._in_time(packet.payload, lambda: self._plane.publisher.admit(self._call, publication))

    async def _judge(self, payload: bytes) -> None:
        """Raise Refused where a policy of the route before this door says no."""
        if self._call.route is not None:
            await judged(self._plane, self._call, "message_in", payload)

    async def _in_time(self, payload: bytes, admitted: Callable[[], Awaitable[T]]) -> T:
        """Admit a publish; a client of MQTT 3.1.1 waits where a limit is met, as nothing more is read meanwhile."""
        ends_at = time.monotonic() + DELAY_MAX_S
        is_waiting = is_judged = False
        while True:
            try:
                if not is_judged:
                    await self._judge(payload)
                is_judged = True
                return await admitted()
            except Refused as refused:
                wait_s = refused.retry_after_s or 0.1
                can_wait = self._session.version != V5 and refused.reason is Reason.RATE_LIMITED and not refused.fatal
                if not can_wait or time.monotonic() + wait_s > ends_at:
                    raise
                if not is_waiting and self._call.connection is not None:
                    self._call.connection.refused(refused)
                is_waiting = True
                await asyncio.sleep(wait_s)

    def _keeps(self, packet: Publish) -> bool:
        """An invalid event whose publisher cannot be told is acknowledged, so it is kept in the dead letters."""
        return self._session.version != V5 and packet.qos > 0

    async def _clear(self, topic: str) -> Coroutine[Any, Any, None]:
        """Admit an empty retained publish: no event, but the word that nothing is retained any more (3.3.1.3)."""
        _, subject = channel_for(self._plane.snapshot, self._call, topic, Verb.PUBLISH)
        await self._plane.limiter.charge(self._call, messages_in=1)
        return self._plane.retained.retain(subject, None)

    async def _keep(self, admitted: Admitted, is_retained: bool) -> None:
        stored = await self._plane.publisher.store(self._call, admitted)
        if is_retained:
            await self._plane.retained.retain(admitted.subject, stored.sequence)

    async def _do(self, in_flight: InFlightPublish, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Refused as refused:
            in_flight.refused = refused
        except Exception:
            logger.exception("storing failed")
            in_flight.refused = Refused(Reason.INTERNAL)
        if in_flight.refused is not None and self._call.connection is not None:
            self._call.connection.refused(in_flight.refused)
        in_flight.is_over = True
        self._advance()

    def _advance(self) -> None:
        """Acknowledge what is over, in the order in which it came (4.6)."""
        waiting = self._in_flight
        while waiting and waiting[0].is_over:
            self._acknowledge(waiting.popleft())
        if self._room is not None and len(waiting) < STORING_MAX // 2:
            if not self._room.done():
                self._room.set_result(None)
            self._room = None

    def _acknowledge(self, in_flight: InFlightPublish) -> None:
        packet, refused = in_flight.packet, in_flight.refused
        if refused is not None and self._is_deadly(refused):
            # Without an acknowledgement a client of 3.1.1 publishes again once it is back.
            self._close(refused)
            return
        if packet.qos == 2:
            if refused is None:
                self._session.stored(packet.packet_id)
            else:
                self._session.release(packet.packet_id)
        if packet.qos:
            self._say(self._answers.ack(packet, refused))

    def _is_deadly(self, refused: Refused) -> bool:
        """MQTT 3.1.1 has no negative PUBACK: what is neither kept nor invalid ends the connection (MQTT-3.3.5-2)."""
        return refused.fatal or (self._session.version != V5 and refused.reason is not Reason.INVALID_PAYLOAD)


def _marks(is_retained: bool) -> dict[str, str]:
    return {RETAIN: "1"} if is_retained else {}


def _publication(
    topic: str, payload: bytes, properties: Properties, attributes: dict[str, str] | None = None, *, keeps: bool = False
) -> Publication:
    """Say a PUBLISH as a publication. Raises Refused for a CloudEvent in structured mode that is none."""
    given = dict(attributes or {})
    if not properties:
        return Publication(topic, payload, attributes=given, keeps_invalid=keeps)
    user: dict[str, Any] = dict(properties.get("user", ()))
    is_binary = "specversion" in user
    for name, value in user.items():
        if name.startswith(_PREFIX):
            given[name[len(_PREFIX) :]] = value
        elif is_binary and name not in _BINARY_MODE:
            given[name] = value
    if "tracestate" in user:
        given["tracestate"] = user["tracestate"]
    given.pop("specversion", None)
    content_type = properties.get("content_type") or "application/json"
    if content_type.partition(";")[0].strip() == "application/cloudevents+json":
        content = structured(parse(payload, depth_max=DEPTH_MAX + 1))
        return Publication(
            topic,
            content.data,
            content.content_type,
            traceparent=user.get("traceparent"),
            attributes=content.attributes | given,
        )
    return Publication(
        topic, payload, content_type, traceparent=user.get("traceparent"), attributes=given, keeps_invalid=keeps
    )
