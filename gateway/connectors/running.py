"""Runs connectors: a source's records onto its channel, a channel's events into a sink; at least once, in order.

A source's records are committed once their events are stored; a sink's events are acknowledged once the broker has
them. What is done again after a fault is stored once where the broker names its messages.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from gateway.call import Call
from gateway.channels.publication import Admitted, Publication
from gateway.channels.publisher import as_json
from gateway.concurrency.stopping import stop_soon, stop_tasks
from gateway.connectors.broker import BATCH_MAX, Broken, Record, Sink, Source, Unwritable, filled, placed
from gateway.connectors.kinds import SOURCE, NoSuchKind, NotInstalled, find
from gateway.link.nats import DEAD_SUBJECT
from gateway.log.event import Event, from_headers, rfc3339
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.principal import Principal

if TYPE_CHECKING:
    from gateway.plane import Plane
    from gateway.snapshot.documents import Channel, Connector

logger = logging.getLogger(__name__)

RETRY_S, RETRY_MAX_S = 0.5, 30.0
OWN_RETRY_MAX_S = 2.0
ACK_WAIT_S = 15.0
"""After so long what a process that died had in its hands is given to another."""
FETCH_WAIT_S = 1.0
PASSING = frozenset(
    {
        Reason.RATE_LIMITED, Reason.QUOTA_EXCEEDED, Reason.OVERLOADED, Reason.DRAINING, Reason.STORAGE_FULL,
        Reason.INTERNAL,
    }
)  # fmt: skip
"""Refusals that pass: the same record is tried again. Others are of the record, which goes to the dead letters."""
STARTS = {"earliest": DeliverPolicy.ALL, "latest": DeliverPolicy.NEW}
BURIED_MAX_BYTES = 256 * 1024
CLOSE_TIMEOUT_S = 10.0
FINISH_S = 2.0
OF_OTHERS = (Broken, NoSuchKind, NotInstalled)
"""What may take long to mend; our own log is back soon."""
FAULTS = (Broken, NoSuchKind, NotInstalled, Refused, NatsError, OSError, TimeoutError)


@dataclass(slots=True)
class Health:
    """How a connector does, as it is told to operators."""

    state: str = "starting"
    """``starting``, ``running`` or ``failing``."""
    error: str = ""
    since: float = field(default_factory=time.time)
    passed: int = 0
    """Records or events passed on since the process began."""
    buried: int = 0
    last_at: float | None = None

    def is_now(self, state: str, error: str = "") -> None:
        """Note a state; its instant is that of the change."""
        if (state, error) != (self.state, self.error):
            self.state, self.error, self.since = state, error, time.time()

    def has_passed(self, count: int) -> None:
        """Count what was passed on."""
        if count:
            self.passed += count
            self.last_at = time.time()


class Running:
    """One connector while it runs."""

    def __init__(self, plane: Plane, document: Connector, *, had_a_reader: bool = False) -> None:
        self._plane = plane
        self.document = document
        self.health = Health()
        self.had_a_reader = had_a_reader
        """A sink has had a place in its channel: where it has none now, the log was emptied."""

    async def run(self) -> None:
        """Run until cancelled; what fails is tried again, more and more rarely."""
        pause_s = RETRY_S
        while True:
            began_at, most_s = time.monotonic(), RETRY_MAX_S
            try:
                await self._run_once()
            except FAULTS as error:
                self._failed(error)
                if not isinstance(error, OF_OTHERS):
                    most_s = OWN_RETRY_MAX_S
            except Exception as error:
                logger.exception("connector %s failed", self.document.name)
                self._failed(error)
            pause_s = RETRY_S if time.monotonic() - began_at > RETRY_MAX_S else min(2 * pause_s, most_s)
            await asyncio.sleep(pause_s)

    def _failed(self, error: BaseException) -> None:
        said = str(error) or type(error).__name__
        if self.health.error != said:
            logger.warning("connector %s: %s", self.document.name, said)
        self.health.is_now("failing", said)

    async def _run_once(self) -> None:
        channel = self._channel()
        made = find(self.document.type, self.document.direction)
        broker = made.make(filled(self.document.options, made.options), self.document.name)
        try:
            await broker.open()
            self.health.is_now("running")
            if self.document.direction == SOURCE:
                await self._drain(broker)
            else:
                await self._fill(broker, channel)
        finally:
            await _closed(broker)

    def _channel(self) -> Channel:
        for channel in self._plane.snapshot.channels():
            if channel.address == self.document.channel:
                return channel
        raise Broken(f"there is no channel {self.document.channel}")

    # A source

    async def _drain(self, source: Source) -> None:
        call = self._call()
        while True:
            records = await source.read()
            if records:
                await self._publish(call, records)
                await source.commit(records)
                self.health.has_passed(len(records))

    def _call(self) -> Call:
        name = f"connector:{self.document.name}"
        return Call(
            protocol=Protocol.CONNECTOR,
            address=self.document.channel,
            ip="127.0.0.1",
            target=self.document.channel,
            is_anonymous=True,
            principal=Principal(consumer=name, key=name, tier="", scopes=("publish:*",)),
        )

    async def _publish(self, call: Call, records: Sequence[Record]) -> None:
        """Store all records, in their order; what can never be stored is buried, and holds up nothing."""
        left = list(records)
        while left:
            outcomes = await asyncio.gather(*[self._publish_one(call, record) for record in left])
            left = [record for record, is_done in zip(left, outcomes, strict=True) if not is_done]
            if left:
                await asyncio.sleep(RETRY_S)

    async def _publish_one(self, call: Call, record: Record) -> bool:
        """Store one record, or bury it; False where it is to be tried again."""
        try:
            await self._plane.publisher.store(call, await self._admit(call, record))
        except Refused as refused:
            if refused.reason in PASSING:
                return False
            self.health.buried += 1
            if refused.reason is not Reason.INVALID_PAYLOAD or refused.cause == "idempotency-key-reused":
                # What else is invalid was buried with its fault when it was looked at.
                await self._bury(self._address(record), record.data, refused.reason.value, refused.detail)
        return True

    async def _admit(self, call: Call, record: Record) -> Admitted:
        publication = Publication(
            address=self._address(record),
            data=record.data,
            content_type=record.content_type,
            idempotency_key=record.id or None,
            traceparent=record.traceparent,
            attributes=record.attributes,
            keeps_invalid=True,
        )
        admitted = await self._plane.publisher.admit(call, publication)
        if admitted.channel.address != self.document.channel:
            raise Refused(Reason.INVALID_REQUEST, f"{publication.address} is not an address of this channel.")
        return admitted

    def _address(self, record: Record) -> str:
        try:
            return placed(self.document.address or self.document.channel, record.places)
        except KeyError:
            return self.document.channel

    # A sink

    async def _fill(self, sink: Sink, channel: Channel) -> None:
        subscription = await self._subscribe(channel)
        try:
            while True:
                try:
                    messages = await subscription.fetch(BATCH_MAX, FETCH_WAIT_S)
                except TimeoutError:
                    continue
                await self._write_all(sink, channel, messages)
        finally:
            # What NATS had on its way to us would wait for an acknowledgement that never comes.
            await subscription.unsubscribe()

    async def _write_all(self, sink: Sink, channel: Channel, messages: Sequence[Msg]) -> None:
        """Write events and acknowledge them; a stop waits a moment for what is under way, or it would come twice."""
        beating = asyncio.create_task(_beat(messages))
        writing = asyncio.create_task(self._write(sink, [_event(channel, message) for message in messages]))
        try:
            await asyncio.wait([writing])
        except asyncio.CancelledError:
            await asyncio.wait([writing], timeout=FINISH_S)
            if writing.done() and writing.exception() is None:
                await self._acknowledge(messages)
            raise
        finally:
            await stop_tasks(beating, writing)
        writing.result()
        await self._acknowledge(messages)

    async def _acknowledge(self, messages: Sequence[Msg]) -> None:
        for message in messages:
            await message.ack()
        self.health.has_passed(len(messages))

    async def _subscribe(self, channel: Channel) -> Any:
        """Read on from the last event that was acknowledged.

        What was given out and not acknowledged would come again behind newer events: a reader that begins anew at its
        first takes the place of one that has such, and keeps the order. There is always one that knows the place.
        """
        js, names = self._plane.js, durables(self.document)
        known = [info for name in names if (info := await self._info(channel, name)) is not None]
        known.sort(key=lambda info: info.ack_floor.stream_seq)
        if not known:
            # Where there was one before, the log was emptied: all that it holds came since.
            start = "earliest" if self.had_a_reader else self.document.start
            await self._add_reader(channel, names[0], deliver_policy=STARTS[start])
            self.had_a_reader = True
            return await js.pull_subscribe_bind(durable=names[0], stream=channel.stream)
        self.had_a_reader = True
        *others, current = known
        name = current.name
        for other in others:
            await js.delete_consumer(channel.stream, other.name)
        if current.num_ack_pending:
            name = next(other for other in names if other != current.name)
            begins_at = current.ack_floor.stream_seq + 1
            policy = DeliverPolicy.BY_START_SEQUENCE
            await self._add_reader(channel, name, deliver_policy=policy, opt_start_seq=begins_at)
            await js.delete_consumer(channel.stream, current.name)
        return await js.pull_subscribe_bind(durable=name, stream=channel.stream)

    async def _info(self, channel: Channel, name: str) -> Any:
        try:
            return await self._plane.js.consumer_info(channel.stream, name)
        except NotFoundError:
            return None

    async def _add_reader(self, channel: Channel, name: str, **begins: Any) -> None:
        config = ConsumerConfig(
            durable_name=name,
            filter_subject=channel.subject,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_ack_pending=BATCH_MAX,
            **begins,
        )
        await self._plane.js.add_consumer(channel.stream, config)

    async def _write(self, sink: Sink, events: list[Event]) -> None:
        while events:
            try:
                await sink.write(events)
            except Unwritable as unwritable:
                bad = unwritable.event
                await self._bury(bad.address, bad.data, "undeliverable", str(unwritable))
                self.health.buried += 1
                # Those before it may be there already: they are written once more, as after any fault.
                events = [event for event in events if event is not bad]
            else:
                return

    async def _bury(self, address: str, data: bytes, reason: str, detail: str) -> None:
        channel = self._channel()
        letter: Mapping[str, Any] = {
            "channel": channel.address,
            "address": address,
            "reason": reason,
            "detail": f"connector {self.document.name}: {detail}"[:500],
            "consumer": f"connector:{self.document.name}",
            "protocol": Protocol.CONNECTOR.value,
            "attempts": 1,
            "event": as_json(data[:BURIED_MAX_BYTES]),
            "dead_at": rfc3339(datetime.now(UTC)),
        }
        await self._plane.log.store(f"{DEAD_SUBJECT}.{channel.stream}", orjson.dumps(letter))


def durables(connector: Connector) -> tuple[str, str]:
    """Name the readers that keep a sink's place in its channel: one of them is in use."""
    return f"connector_{connector.id}", f"connector_{connector.id}_2"


async def _beat(messages: Sequence[Msg]) -> None:
    """Keep what is being written from being given to somebody else."""
    while True:
        await asyncio.sleep(ACK_WAIT_S / 3)
        for message in messages:
            await message.in_progress()


async def _closed(broker: Source | Sink) -> None:
    """Disconnect; a broker that is gone cannot be told.

    In a task of its own: a client's cancellation of its parts may come out of it, and is none of ours.
    """
    closing = asyncio.create_task(broker.close())
    try:
        await asyncio.wait([closing], timeout=CLOSE_TIMEOUT_S)
    finally:
        closing.add_done_callback(_left)
        stop_soon(closing)


def _left(closing: asyncio.Task[None]) -> None:
    if not closing.cancelled() and (error := closing.exception()) is not None:
        logger.debug("a connector did not take leave: %s", error)


def _event(channel: Channel, message: Msg) -> Event:
    about = message.metadata
    headers = {
        **(message.headers or {}),
        "Nats-Sequence": str(about.sequence.stream),
        "Nats-Time-Stamp": rfc3339(about.timestamp.astimezone(UTC)),
    }
    return from_headers(channel.address, message.subject, headers, message.data)
