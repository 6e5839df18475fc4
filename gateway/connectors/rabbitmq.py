"""RabbitMQ (AMQP 0-9-1), by aio-pika. Attributes as message headers, by the names of CloudEvents' AMQP binding."""

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
    Broken,
    Options,
    Record,
    event_places,
    placed,
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


class _Linked:
    """A connection and a channel of ours; the runner makes it anew after a fault."""

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
            raise Broken(_said(error)) from error

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


class RabbitSource(_Linked):
    """Consumes a queue that is there; a message is acknowledged once its event is stored."""

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
            raise Broken(_said(error)) from error

    async def read(self) -> Sequence[Record]:
        if self._lost is None or self._lost.done():
            raise Broken("RabbitMQ: the connection was lost")
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
            raise Broken(_said(error)) from error


class RabbitSink(_Linked):
    """Publishes to an exchange with confirms; what no queue takes is not lost but tried again."""

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
            raise Broken(_said(error)) from error

    async def write(self, events: Sequence[Event]) -> None:
        assert self._exchange is not None, "open comes first"
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.gather(*(self._publish(self._exchange, event) for event in events))
        except DeliveryError as error:
            raise Broken("RabbitMQ: no queue is bound for what was published") from error
        except _FAULTS as error:
            raise Broken(_said(error)) from error

    async def _publish(self, exchange: aio_pika.abc.AbstractExchange, event: Event) -> None:
        given = headers.written(event, PREFIX)
        message = aio_pika.Message(
            event.data,
            headers={name: value for name, value in given.items() if name != "content-type"},
            content_type=event.content_type,
            message_id=f"{event.channel}/{event.id}",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await exchange.publish(message, placed(self._routing_key, event_places(event)), mandatory=True)


def _record(message: AbstractIncomingMessage) -> Record:
    given = {name: str(value) for name, value in message.headers.items()}
    attributes, _, traceparent = headers.read(given, PREFIXES)
    return Record(
        # RabbitMQ numbers no message: only a publisher's own id says that this one came before. A CloudEvent's own is
        # looked at where events are stored; that of the message is another one each time that some clients send it.
        id="" if "id" in attributes else message.message_id or "",
        data=message.body,
        handle=message,
        places={"key": message.routing_key or "", "exchange": message.exchange or ""},
        content_type=headers.content_type_of(message.body, message.content_type),
        attributes=attributes,
        traceparent=traceparent,
    )


def _said(error: BaseException) -> str:
    return f"RabbitMQ: {type(error).__name__}: {error}"[:300]
