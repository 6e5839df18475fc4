"""Kafka, by aiokafka. Attributes by CloudEvents' Kafka binding, binary mode (prefix ``ce_``)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, MessageSizeTooLargeError

from gateway.connectors import headers
from gateway.connectors.broker import (
    BATCH_MAX,
    CONNECT_TIMEOUT_S,
    READ_WAIT_S,
    BrokerUnavailable,
    Options,
    Record,
    Unwritable,
    event_placeholders,
    fill_placeholders,
    flag,
    one_of,
    text,
)
from gateway.log.event import Event

# The runner logs a failure once; the client would log each of its retries.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

PREFIX = "ce_"
CHECK_S, CHECK_WITHIN_S = 10.0, 5.0
"""After this time without records, the connection to Kafka is checked."""
EXPIRES_S = 5.0
"""The client gives up unacknowledged writes after this time; it cannot be closed before."""
_CONNECTION_OPTIONS = (
    text("bootstrap_servers", is_required=True),
    text("topic", is_required=True),
    one_of("sasl_mechanism", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
    text("username"),
    text("password", is_secret=True),
    flag("tls", default=False),
)
SOURCE_OPTIONS = (
    *_CONNECTION_OPTIONS,
    text("group", is_required=True),
    one_of("start", "earliest", "latest", default="earliest"),
)
SINK_OPTIONS = (*_CONNECTION_OPTIONS, text("key", default="{address}"))


def _link(options: Options) -> dict[str, Any]:
    link: dict[str, Any] = {"bootstrap_servers": options["bootstrap_servers"].split(",")}
    is_secured = options["sasl_mechanism"] is not None
    link["security_protocol"] = {
        (False, False): "PLAINTEXT", (False, True): "SSL", (True, False): "SASL_PLAINTEXT", (True, True): "SASL_SSL",
    }[is_secured, options["tls"]]  # fmt: skip
    if options["tls"]:
        from ssl import create_default_context

        link["ssl_context"] = create_default_context()
    if is_secured:
        link |= {
            "sasl_mechanism": options["sasl_mechanism"],
            "sasl_plain_username": options["username"],
            "sasl_plain_password": options["password"],
        }
    return link


class KafkaSource:
    """Reads a topic as a member of a group, from the offsets that the group committed."""

    def __init__(self, options: Options, name: str) -> None:
        self._consumer = AIOKafkaConsumer(
            options["topic"],
            **_link(options),
            client_id=name,
            group_id=options["group"],
            # A static member: after it was killed, it takes its partitions back at once, without a rebalance.
            group_instance_id=f"apimgmt-{name}",
            enable_auto_commit=False,
            auto_offset_reset=options["start"],
            isolation_level="read_committed",
        )
        self._checked_at = time.monotonic()

    async def open(self) -> None:
        try:
            await self._consumer.start()
        except KafkaError as error:
            raise BrokerUnavailable(_describe(error)) from error
        self._checked_at = time.monotonic()

    async def read(self) -> Sequence[Record]:
        try:
            batches = await self._consumer.getmany(timeout_ms=int(READ_WAIT_S * 1000), max_records=BATCH_MAX)
        except KafkaError as error:
            raise BrokerUnavailable(_describe(error)) from error
        if not batches and time.monotonic() - self._checked_at > CHECK_S:
            await self._check_connection()
        return [_record(partition, message) for partition, messages in batches.items() for message in messages]

    async def _check_connection(self) -> None:
        """Check that Kafka answers: the client reports no records when Kafka is gone, too."""
        partitions = self._consumer.assignment()
        if not partitions:
            raise BrokerUnavailable(
                "Kafka: no partition is assigned: the topic does not exist, or other group members read all of it"
            )
        try:
            async with asyncio.timeout(CHECK_WITHIN_S):
                await self._consumer.end_offsets(partitions)
        except (KafkaError, TimeoutError) as error:
            raise BrokerUnavailable("Kafka: no answer") from error
        self._checked_at = time.monotonic()

    async def commit(self, records: Sequence[Record]) -> None:
        ends: dict[TopicPartition, int] = {}
        for record in records:
            partition, offset = record.handle
            ends[partition] = offset + 1
        try:
            await self._consumer.commit(ends)
        except KafkaError as error:
            raise BrokerUnavailable(_describe(error)) from error

    async def close(self) -> None:
        await self._consumer.stop()


class KafkaSink:
    """Writes to a topic; the record key keeps the events of one address in one partition, and so in order."""

    def __init__(self, options: Options, name: str) -> None:
        self._topic = options["topic"]
        self._key = options["key"]
        self._options = {
            **_link(options),
            "client_id": name,
            "acks": "all",
            "enable_idempotence": True,
            "request_timeout_ms": int(EXPIRES_S * 1000),
        }
        self._producer = AIOKafkaProducer(**self._options)

    async def open(self) -> None:
        try:
            await self._producer.start()
        except KafkaError as error:
            raise BrokerUnavailable(_describe(error)) from error

    async def write(self, events: Sequence[Event]) -> None:
        try:
            try:
                await self._write(events)
            except MessageSizeTooLargeError:
                await self._find_too_large(events)
        except TimeoutError as error:
            raise BrokerUnavailable("Kafka: a write was not acknowledged") from error
        except KafkaError as error:
            raise BrokerUnavailable(_describe(error)) from error

    async def close(self) -> None:
        await self._producer.stop()

    async def _write(self, events: Sequence[Event]) -> None:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            sent = [await self._send(event) for event in events]
            outcomes = await asyncio.gather(*sent, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _find_too_large(self, events: Sequence[Event]) -> None:
        """Write one event at a time, to find the one that exceeds the size limit of the topic. Raises Unwritable."""
        await self._restart_producer()
        for event in events:
            try:
                await self._write([event])
            except MessageSizeTooLargeError as error:
                await self._restart_producer()
                raise Unwritable(event, "the event exceeds the size limit of the topic") from error

    async def _restart_producer(self) -> None:
        """Replace the producer: a rejected write leaves a gap in its sequence numbers, which Kafka rejects."""
        await self._producer.stop()
        self._producer = AIOKafkaProducer(**self._options)
        await self._producer.start()

    async def _send(self, event: Event) -> asyncio.Future[Any]:
        sent: asyncio.Future[Any] = await self._producer.send(
            self._topic,
            event.data,
            key=fill_placeholders(self._key, event_placeholders(event)).encode(),
            headers=[(name, value.encode()) for name, value in headers.written(event, PREFIX).items()],
        )
        return sent


def _record(partition: TopicPartition, message: Any) -> Record:
    header_fields = {name: (value or b"").decode("utf-8", "replace") for name, value in message.headers}
    attributes, content_type, traceparent = headers.read(header_fields, (PREFIX,))
    places = {"topic": message.topic}
    if message.key is not None:
        places["key"] = message.key.decode("utf-8", "replace")
    return Record(
        # A recreated topic starts at the same offset with other records.
        id=f"{message.topic}/{message.partition}/{message.offset}/{message.timestamp}",
        data=message.value or b"",
        handle=(partition, message.offset),
        placeholders=places,
        content_type=content_type,
        attributes=attributes,
        traceparent=traceparent,
    )


def _describe(error: KafkaError) -> str:
    if isinstance(error, KafkaConnectionError):
        return "Kafka: none of the `bootstrap_servers` can be reached"
    return f"Kafka: {type(error).__name__.removesuffix('Error')}: {error}"[:300]
