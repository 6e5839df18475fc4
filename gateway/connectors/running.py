"""Runs connectors: publishes records of a source, writes events of a channel to a sink; at least once, in order.

Records are committed once their events are stored, and events are acknowledged once the broker has confirmed them.
A record that is read again after a failure is stored once, if the broker gives its messages ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from gateway.call import Call
from gateway.channels.publication import Admitted, Publication
from gateway.concurrency.stopping import stop_soon, stop_tasks
from gateway.connectors.broker import (
    BATCH_MAX,
    HOLD_S,
    BrokerUnavailable,
    HoldingSource,
    Record,
    Sink,
    Source,
    Unwritable,
    fill_placeholders,
    resolve_options,
)
from gateway.connectors.health import Health
from gateway.connectors.kinds import SOURCE, NoSuchKind, NotInstalled, find
from gateway.durable.dead_letter import DETAIL_MAX_CHARS, DeadEvent, store_letter
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
"""JetStream redelivers the events that a dead process had fetched after this time."""
FETCH_WAIT_S = 1.0
TRANSIENT = frozenset(
    {
        Reason.RATE_LIMITED, Reason.QUOTA_EXCEEDED, Reason.OVERLOADED, Reason.DRAINING, Reason.STORAGE_FULL,
        Reason.INTERNAL,
    }
)  # fmt: skip
"""Refusals after which a record is tried again. Any other refusal makes it a dead letter."""
STARTS = {"earliest": DeliverPolicy.ALL, "latest": DeliverPolicy.NEW}
CLOSE_TIMEOUT_S = 10.0
FINISH_S = 2.0
BROKER_FAULTS = (BrokerUnavailable, NoSuchKind, NotInstalled)
"""Failures that may last long, unlike those of the gateway's own log."""
FAULTS = (BrokerUnavailable, NoSuchKind, NotInstalled, Refused, NatsError, OSError, TimeoutError)


class Running:
    """One running connector."""

    def __init__(self, plane: Plane, document: Connector, *, had_reader: bool = False) -> None:
        self._plane = plane
        self.document = document
        self.health = Health()
        self.had_reader = had_reader
        """A sink has had a reader in its channel: if the reader is missing now, the log was emptied."""

    async def run(self) -> None:
        """Run until cancelled; after a failure, try again at growing intervals."""
        pause_s = RETRY_S
        while True:
            started_at, pause_max_s = time.monotonic(), RETRY_MAX_S
            try:
                await self._run_once()
            except FAULTS as error:
                self._failed(error)
                if not isinstance(error, BROKER_FAULTS):
                    pause_max_s = OWN_RETRY_MAX_S
            except Exception as error:
                logger.exception("connector %s failed", self.document.name)
                self._failed(error)
            pause_s = RETRY_S if time.monotonic() - started_at > RETRY_MAX_S else min(2 * pause_s, pause_max_s)
            await asyncio.sleep(pause_s)

    def _failed(self, error: BaseException) -> None:
        detail = str(error) or type(error).__name__
        if self.health.error != detail:
            logger.warning("connector %s: %s", self.document.name, detail)
        self.health.report_state("failing", detail)

    async def _run_once(self) -> None:
        channel = self._channel()
        factory = find(self.document.type, self.document.direction)
        broker = factory.make(resolve_options(self.document.options, factory.options), self.document.name)
        try:
            await broker.open()
            self.health.report_state("running")
            if self.document.direction == SOURCE:
                await self._drain(broker)
            else:
                await self._fill(broker, channel)
        finally:
            await _close(broker)

    def _channel(self) -> Channel:
        for channel in self._plane.snapshot.channels():
            if channel.address == self.document.channel:
                return channel
        raise BrokerUnavailable(f"there is no channel {self.document.channel}")

    # A source

    async def _drain(self, source: Source) -> None:
        call = self._call()
        while True:
            records = await source.read()
            if records:
                holding = asyncio.create_task(_hold(source, records)) if isinstance(source, HoldingSource) else None
                try:
                    await self._publish(call, records)
                finally:
                    await stop_tasks(holding)
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
        """Publish records in order; those that can never be published become dead letters.

        After one that is to be tried again nothing is admitted. What was stored behind it, as when the link to the log
        was lost between the two, is published again after it: a repeat keeps the order, unless the log knows the record
        by its id.
        """
        pending = list(records)
        while pending:
            admitted = await self._admit_all(call, pending)
            outcomes = await asyncio.gather(
                *(self._store(call, record, one) for record, one in zip(pending, admitted, strict=False))
            )
            count = outcomes.index(False) if False in outcomes else len(outcomes)
            behind = [record for record, one in zip(pending[count:], admitted[count:], strict=False) if one is not None]
            pending = behind + pending[len(admitted) :]
            if pending:
                await asyncio.sleep(RETRY_S)

    async def _admit_all(self, call: Call, records: Sequence[Record]) -> list[Admitted | None]:
        """Admit records up to the first that is to be tried again. None stands for one that became a dead letter."""
        admitted: list[Admitted | None] = []
        for record in records:
            try:
                admitted.append(await self._admit(call, record))
            except Refused as refused:
                if refused.reason in TRANSIENT:
                    break
                await self._bury(record, refused)
                admitted.append(None)
        return admitted

    async def _store(self, call: Call, record: Record, admitted: Admitted | None) -> bool:
        """Store an admitted record, or a dead letter of it. Returns False if it is to be tried again."""
        if admitted is None:
            return True
        try:
            await self._plane.publisher.store(call, admitted)
        except Refused as refused:
            if refused.reason in TRANSIENT:
                return False
            await self._bury(record, refused)
        return True

    async def _bury(self, record: Record, refused: Refused) -> None:
        self.health.buried += 1
        if refused.reason is not Reason.INVALID_PAYLOAD or refused.cause == "idempotency-key-reused":
            # For other invalid payloads, the publisher has stored a dead letter with the validation error.
            await self._store_dead_letter(
                self._address(record), self._dead_event(record), refused.reason.value, refused.detail
            )

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

    def _dead_event(self, record: Record) -> DeadEvent:
        content_type = record.content_type or self._channel().media_type
        return DeadEvent.refused(record.data, content_type, record.attributes, record.traceparent)

    def _address(self, record: Record) -> str:
        try:
            return fill_placeholders(self.document.address or self.document.channel, record.placeholders)
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
            # Events on their way here would wait for an acknowledgement that never comes.
            await subscription.unsubscribe()

    async def _write_all(self, sink: Sink, channel: Channel, messages: Sequence[Msg]) -> None:
        """Write and acknowledge events. When stopped, wait ``FINISH_S`` for a write, so that it is not repeated."""
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
        """Subscribe after the last acknowledged event.

        JetStream would redeliver unacknowledged events behind newer ones. To keep the order, a reader with such events
        is replaced by one that starts at the first of them; at any time at least one of the two exists.
        """
        js, names = self._plane.js, durables(self.document)
        readers = [info for name in names if (info := await self._info(channel, name)) is not None]
        readers.sort(key=lambda info: info.ack_floor.stream_seq)
        if not readers:
            # If there was one before, the log was emptied, and all of its events are newer.
            start = "earliest" if self.had_reader else self.document.start
            await self._add_reader(channel, names[0], deliver_policy=STARTS[start])
            self.had_reader = True
            return await js.pull_subscribe_bind(durable=names[0], stream=channel.stream)
        self.had_reader = True
        *others, current = readers
        name = current.name
        for other in others:
            await js.delete_consumer(channel.stream, other.name)
        if current.num_ack_pending:
            name = next(other for other in names if other != current.name)
            start_id = current.ack_floor.stream_seq + 1
            policy = DeliverPolicy.BY_START_SEQUENCE
            await self._add_reader(channel, name, deliver_policy=policy, opt_start_seq=start_id)
            await js.delete_consumer(channel.stream, current.name)
        return await js.pull_subscribe_bind(durable=name, stream=channel.stream)

    async def _info(self, channel: Channel, name: str) -> Any:
        try:
            return await self._plane.js.consumer_info(channel.stream, name)
        except NotFoundError:
            return None

    async def _add_reader(self, channel: Channel, name: str, **start: Any) -> None:
        config = ConsumerConfig(
            durable_name=name,
            filter_subject=channel.stored(channel.subject),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_ack_pending=BATCH_MAX,
            **start,
        )
        await self._plane.js.add_consumer(channel.stream, config)

    async def _write(self, sink: Sink, events: list[Event]) -> None:
        now = time.time()
        events = [event for event in events if not event.has_expired(now)]
        while events:
            try:
                await sink.write(events)
            except Unwritable as unwritable:
                rejected = unwritable.event
                await self._store_dead_letter(
                    rejected.address, DeadEvent.stored(rejected), "undeliverable", str(unwritable)
                )
                self.health.buried += 1
                # Events before it may have been written already; they are written again, as after any failure.
                events = [event for event in events if event is not rejected]
            else:
                return

    async def _store_dead_letter(self, address: str, event: DeadEvent, reason: str, detail: str) -> None:
        letter = {
            "address": address,
            "reason": reason,
            "detail": f"connector {self.document.name}: {detail}"[:DETAIL_MAX_CHARS],
            "consumer": f"connector:{self.document.name}",
            "protocol": Protocol.CONNECTOR.value,
            "attempts": 1,
        }
        await store_letter(self._plane.log, self._channel(), letter, event)


def durables(connector: Connector) -> tuple[str, str]:
    """Return the names of a sink's two readers, of which one is in use."""
    return f"connector_{connector.id}", f"connector_{connector.id}_2"


async def _hold(source: HoldingSource, records: Sequence[Record]) -> None:
    """Hold the records that are being published; if that fails, they are read again, and stored once by their ids."""
    while True:
        await asyncio.sleep(HOLD_S / 3)
        with contextlib.suppress(BrokerUnavailable):
            await source.hold(records)


async def _beat(messages: Sequence[Msg]) -> None:
    """Extend the ack wait of the events that are being written."""
    while True:
        await asyncio.sleep(ACK_WAIT_S / 3)
        for message in messages:
            await message.in_progress()


async def _close(broker: Source | Sink) -> None:
    """Disconnect within ``CLOSE_TIMEOUT_S``; errors are ignored.

    This is a separate task, because a client may raise a CancelledError from the tasks that it cancels.
    """
    closing = asyncio.create_task(broker.close())
    try:
        await asyncio.wait([closing], timeout=CLOSE_TIMEOUT_S)
    finally:
        closing.add_done_callback(_left)
        stop_soon(closing)


def _left(closing: asyncio.Task[None]) -> None:
    if not closing.cancelled() and (error := closing.exception()) is not None:
        logger.debug("a connector did not disconnect cleanly: %s", error)


def _event(channel: Channel, message: Msg) -> Event:
    metadata = message.metadata
    headers = {
        **(message.headers or {}),
        "Nats-Sequence": str(metadata.sequence.stream),
        "Nats-Time-Stamp": rfc3339(metadata.timestamp.astimezone(UTC)),
    }
    return from_headers(channel.address, message.subject, headers, message.data)
