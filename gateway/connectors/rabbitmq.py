"""RabbitMQ (AMQP 0-9-1), by aio-pika. Attributes are message headers, named as in CloudEvents' AMQP binding."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPException, DeliveryError

from gateway.connectors import headers
from gateway.connectors.broker import (
    BATCH_MAX,
    CONNECT_TIMEOUT_S,
    READ_WAIT_S,
    BrokerUnavailable,
    Options,
    Record,
    event_placeholders,
    fill_placeholders,
    text,
)
from gateway.log.event import Event

PREFIX = "cloudEvents:"
PREFIXES = ("cloudevents:", "cloudevents_")
_FAULTS = (AMQPException, ConnectionError, OSError, TimeoutError, asyncio.InvalidStateError)
SOURCE_OPTIONS = (text("url", is_required=True, is_secret=True), text("queue", is_required=True))
SINK_OPTIONS = (
    text("url", is_required=True, is_secret=True),
    text("exchange", default=""),
    text("routing_key", default="{address}"),
)


class _Connection:
    """A connection and its channel; the runner replaces it after a failure."""

    def __init__(self, options: Options, name: str) -> None:
        self._url = options["url"]
        self._name = name
        self._connection: aio_pika.abc.AbstractConnection | None = None

    async def _open(self) -> aio_pika.abc.AbstractChannel:
        try:
            self._connection = await aio_pika.connect(
                self._url, timeout=CONNECT_TIMEOUT_S, client_properties={"connection_name": self._name}
            )
            return await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


class RabbitSource(_Connection):
    """Consumes an existing queue; a message is acknowledged once its event is stored."""

    def __init__(self, options: Options, name: str) -> None:
        super().__init__(options, name)
        self._queue = options["queue"]
        self._came: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        self._lost: asyncio.Future[object] | None = None

    async def open(self) -> None:
        channel = await self._open()
        lost = self._lost = asyncio.get_running_loop().create_future()

        def closed(*_: object) -> None:
            if not lost.done():
                lost.set_result(None)

        channel.close_callbacks.add(closed)
        try:
            await channel.set_qos(prefetch_count=BATCH_MAX)
            queue = await channel.get_queue(self._queue)
            await queue.consume(self._came.put)
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error

    async def read(self) -> Sequence[Record]:
        if self._lost is None or self._lost.done():
            raise BrokerUnavailable("RabbitMQ: the connection was lost")
        try:
            async with asyncio.timeout(READ_WAIT_S):
                messages = [await self._came.get()]
        except TimeoutError:
            return []
        while not self._came.empty():
            messages.append(self._came.get_nowait())
        return [_record(message) for message in messages]

    async def commit(self, records: Sequence[Record]) -> None:
        try:
            await records[-1].handle.ack(multiple=True)
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error


class RabbitSink(_Connection):
    """Publishes to an exchange with confirms; an unroutable event is not lost but tried again."""

    def __init__(self, options: Options, name: str) -> None:
        super().__init__(options, name)
        self._exchange_name = options["exchange"]
        self._routing_key = options["routing_key"]
        self._exchange: aio_pika.abc.AbstractExchange | None = None

    async def open(self) -> None:
        channel = await self._open()
        try:
            self._exchange = (
                await channel.get_exchange(self._exchange_name) if self._exchange_name else channel.default_exchange
            )
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error

    async def write(self, events: Sequence[Event]) -> None:
        assert self._exchange is not None, "open comes first"
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.gather(*(self._publish(self._exchange, event) for event in events))
        except DeliveryError as error:
            raise BrokerUnavailable("RabbitMQ: no queue is bound for the routing key") from error
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error

    async def _publish(self, exchange: aio_pika.abc.AbstractExchange, event: Event) -> None:
        header_fields = headers.written(event, PREFIX)
        message = aio_pika.Message(
            event.data,
            headers={name: value for name, value in header_fields.items() if name != "content-type"},
            content_type=event.content_type,
            message_id=f"{event.channel}/{event.id}",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await exchange.publish(message, fill_placeholders(self._routing_key, event_placeholders(event)), mandatory=True)


def _record(message: AbstractIncomingMessage) -> Record:
    header_fields = {name: str(value) for name, value in message.headers.items()}
    attributes, _, traceparent = headers.read(header_fields, PREFIXES)
    return Record(
        # RabbitMQ assigns no ids: only an id of the publisher identifies a repeated message. The id of a CloudEvent is
        # checked when its event is stored. Some clients set a new message id each time that they send a message.
        id="" if "id" in attributes else message.message_id or "",
        data=message.body,
        handle=message,
        placeholders={"key": message.routing_key or "", "exchange": message.exchange or ""},
        content_type=message.content_type or "",
        attributes=attributes,
        traceparent=traceparent,
    )


def _describe(error: BaseException) -> str:
    return f"RabbitMQ: {type(error).__name__}: {error}"[:300]
