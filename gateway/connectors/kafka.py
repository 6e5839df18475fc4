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
    Broken,
    Options,
    Record,
    Unwritable,
    event_places,
    flag,
    one_of,
    placed,
    text,
)
from gateway.log.event import Event

# What it says of each of its own tries is said once, by who runs the connector.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

PREFIX = "ce_"
LOOK_S, LOOK_WITHIN_S = 10.0, 5.0
"""After so long a silence Kafka is asked whether it is there."""
EXPIRES_S = 5.0
"""What Kafka has not acknowledged by then is given up by the client: it could not be closed before."""
_LINK = (
    text("bootstrap_servers", is_required=True),
    text("topic", is_required=True),
    one_of("sasl_mechanism", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
    text("username"),
    text("password", is_secret=True),
    flag("tls", default=False),
)
SOURCE_OPTIONS = (*_LINK, text("group", is_required=True), one_of("start", "earliest", "latest", default="earliest"))
SINK_OPTIONS = (*_LINK, text("key", default="{address}"))


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
            enable_auto_commit=False,
            auto_offset_reset=options["start"],
            isolation_level="read_committed",
        )
        self._looked_at = time.monotonic()

    async def open(self) -> None:
        try:
            await self._consumer.start()
        except KafkaError as error:
            raise Broken(_said(error)) from error
        self._looked_at = time.monotonic()

    async def read(self) -> Sequence[Record]:
        try:
            found = await self._consumer.getmany(timeout_ms=int(READ_WAIT_S * 1000), max_records=BATCH_MAX)
        except KafkaError as error:
            raise Broken(_said(error)) from error
        if not found and time.monotonic() - self._looked_at > LOOK_S:
            await self._look()
        return [_record(partition, message) for partition, messages in found.items() for message in messages]

    async def _look(self) -> None:
        """Look whether silence means that there is nothing: the client itself is silent without Kafka, too."""
        partitions = self._consumer.assignment()
        if not partitions:
            raise Broken("Kafka: no partition of the topic is this connector's: it is not there, or others read it")
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                await self._consumer.end_offsets(partitions)
        except (KafkaError, TimeoutError) as error:
            raise Broken("Kafka: it does not answer") from error
        self._looked_at = time.monotonic()

    async def commit(self, records: Sequence[Record]) -> None:
        ends: dict[TopicPartition, int] = {}
        for record in records:
            partition, offset = record.handle
            ends[partition] = offset + 1
        try:
            await self._consumer.commit(ends)
        except KafkaError as error:
            raise Broken(_said(error)) from error

    async def close(self) -> None:
        await self._consumer.stop()


class KafkaSink:
    """Writes to a topic; the record's key keeps the events of one address in one partition, and so in order."""

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
            raise Broken(_said(error)) from error

    async def write(self, events: Sequence[Event]) -> None:
        try:
            try:
                await self._write(events)
            except MessageSizeTooLargeError:
                await self._find_too_large(events)
        except TimeoutError as error:
            raise Broken("Kafka: what was written is not acknowledged") from error
        except KafkaError as error:
            raise Broken(_said(error)) from error

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
        """Write one at a time: a topic that takes less than Kafka refuses what was sent together. Raises Unwritable."""
        await self._begin_anew()
        for event in events:
            try:
                await self._write([event])
            except MessageSizeTooLargeError as error:
                await self._begin_anew()
                raise Unwritable(event, "the event is larger than the topic takes") from error

    async def _begin_anew(self) -> None:
        """Take another producer: after a refusal the numbers of this one's writes have a hole, which Kafka refuses."""
        await self._producer.stop()
        self._producer = AIOKafkaProducer(**self._options)
        await self._producer.start()

    async def _send(self, event: Event) -> asyncio.Future[Any]:
        sent: asyncio.Future[Any] = await self._producer.send(
            self._topic,
            event.data,
            key=placed(self._key, event_places(event)).encode(),
            headers=[(name, value.encode()) for name, value in headers.written(event, PREFIX).items()],
        )
        return sent


def _record(partition: TopicPartition, message: Any) -> Record:
    given = {name: (value or b"").decode("utf-8", "replace") for name, value in message.headers}
    attributes, content_type, traceparent = headers.read(given, (PREFIX,))
    places = {"topic": message.topic}
    if message.key is not None:
        places["key"] = message.key.decode("utf-8", "replace")
    return Record(
        # A topic that is made anew begins at the same offset, with other records.
        id=f"{message.topic}/{message.partition}/{message.offset}/{message.timestamp}",
        data=message.value or b"",
        handle=(partition, message.offset),
        places=places,
        content_type=content_type,
        attributes=attributes,
        traceparent=traceparent,
    )


def _said(error: KafkaError) -> str:
    if isinstance(error, KafkaConnectionError):
        return "Kafka: none of the `bootstrap_servers` can be reached"
    return f"Kafka: {type(error).__name__.removesuffix('Error')}: {error}"[:300]
