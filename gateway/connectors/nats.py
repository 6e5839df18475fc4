"""Another NATS with JetStream, by nats-py. Attributes by CloudEvents' NATS binding (prefix ``ce-``)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo
from nats.js.errors import APIError

from gateway.connectors import headers
from gateway.connectors.broker import (
    BATCH_MAX,
    CONNECT_TIMEOUT_S,
    HOLD_S,
    READ_WAIT_S,
    BrokerUnavailable,
    Options,
    Record,
    Unwritable,
    event_placeholders,
    fill_placeholders,
    text,
)
from gateway.log.event import Event
from gateway.wire.subjects import AddressError, subject_of

PREFIX = "ce-"
_TOO_LARGE = 10054
REJECTED_MAX = 100_000
"""Sequences before the last delivered one that are looked at for records in flight."""
_FAULTS = (NatsError, OSError, TimeoutError)
_CONNECTION_OPTIONS = (text("url", is_required=True), text("username"), text("password", is_secret=True))
SOURCE_OPTIONS = (
    *_CONNECTION_OPTIONS,
    text("stream", is_required=True),
    text("subject", default=">"),
    text("durable", is_required=True),
)
SINK_OPTIONS = (*_CONNECTION_OPTIONS, text("subject", is_required=True))


class _Connection:
    def __init__(self, options: Options, name: str) -> None:
        self._options = options
        self._name = name
        self._client: Client | None = None

    async def _open(self) -> JetStreamContext:
        options = self._options
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                self._client = await nats.connect(
                    options["url"],
                    name=self._name,
                    user=options["username"],
                    password=options["password"],
                    allow_reconnect=False,
                )
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error
        return self._client.jetstream(timeout=CONNECT_TIMEOUT_S)

    async def close(self) -> None:
        if self._client is not None and not self._client.is_closed:
            await self._client.close()


class NatsSource(_Connection):
    """Reads a stream by a durable consumer, which may be one that the operator has made."""

    async def open(self) -> None:
        js = await self._open()
        config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, ack_wait=HOLD_S, max_ack_pending=2 * BATCH_MAX)
        stream, durable = self._options["stream"], self._options["durable"]
        try:
            self._subscription = await js.pull_subscribe(self._options["subject"], durable, stream, config)
            await self._reject_unacknowledged(await js.consumer_info(stream, durable))
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error

    async def _reject_unacknowledged(self, consumer: ConsumerInfo) -> None:
        """Have what a killed process had read redelivered at once, in order and before newer records.

        JetStream would redeliver it after its ack wait, and newer records meanwhile.
        """
        if not consumer.num_ack_pending or consumer.ack_floor is None or consumer.delivered is None:
            return
        assert self._client is not None, "it is open"
        first, last = consumer.ack_floor.stream_seq + 1, consumer.delivered.stream_seq
        prefix = f"$JS.ACK.{consumer.stream_name}.{consumer.name}.1"
        for sequence in range(max(first, last - REJECTED_MAX), last + 1):  # those that are not in flight are ignored
            await self._client.publish(f"{prefix}.{sequence}.{consumer.delivered.consumer_seq}.0.0", b"-NAK")
        await self._client.flush()

    async def read(self) -> Sequence[Record]:
        try:
            messages = await self._subscription.fetch(BATCH_MAX, READ_WAIT_S)
        except (NatsTimeoutError, TimeoutError):
            if self._client is None or not self._client.is_connected:
                raise BrokerUnavailable("NATS: the connection was lost") from None
            return []
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error
        records = []
        for message in messages:
            attributes, content_type, traceparent = headers.read(message.headers or {}, (PREFIX,))
            records.append(
                Record(
                    id=f"{self._options['stream']}/{message.metadata.sequence.stream}/{message.metadata.timestamp}",
                    data=message.data,
                    handle=message,
                    placeholders={"subject": message.subject, "topic": message.subject.replace(".", "/")},
                    content_type=content_type,
                    attributes=attributes,
                    traceparent=traceparent,
                )
            )
        return records

    async def hold(self, records: Sequence[Record]) -> None:
        try:
            for record in records:
                await record.handle.in_progress()
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error

    async def commit(self, records: Sequence[Record]) -> None:
        try:
            for record in records:
                await record.handle.ack()
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error


class NatsSink(_Connection):
    """Publishes to a stream, whose duplicate window drops repeated writes."""

    async def open(self) -> None:
        self._js = await self._open()

    async def write(self, events: Sequence[Event]) -> None:
        try:
            for event in events:
                await self._publish(event)
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error

    async def _publish(self, event: Event) -> None:
        try:
            places = event_placeholders(event) | {"subject": subject_of(event.address)}
            subject = fill_placeholders(self._options["subject"], places)
            header_fields = headers.written(event, PREFIX) | {"Nats-Msg-Id": f"{event.channel}/{event.id}"}
            await self._js.publish(subject, event.data, headers=header_fields)
        except (MaxPayloadError, AddressError) as error:
            raise Unwritable(event, f"NATS: {error}") from error
        except APIError as error:
            if error.err_code != _TOO_LARGE:
                raise
            raise Unwritable(event, f"NATS: {error.description}") from error


def _describe(error: BaseException) -> str:
    return f"NATS: {type(error).__name__}: {error}"[:300]
