"""Another MQTT broker, by paho-mqtt: MQTT 5, a persistent session, and manual acknowledgement."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

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
    flag,
    text,
    whole,
)
from gateway.log.event import Event
from gateway.log.expiry import seconds_left, with_interval

SESSION_S = 7 * 24 * 3600
KEEPALIVE_S = 20
_CONNECTION_OPTIONS = (
    text("host", is_required=True),
    whole("port", 1, 65535, default=1883),
    flag("tls", default=False),
    text("username"),
    text("password", is_secret=True),
    text("client_id"),
)
SOURCE_OPTIONS = (*_CONNECTION_OPTIONS, text("topic", is_required=True), whole("qos", 0, 1, default=1))
SINK_OPTIONS = (*_CONNECTION_OPTIONS, text("topic", default="{address}"), flag("retain", default=False))


class _Connection:
    """A connection of paho-mqtt, whose thread passes its callbacks to the event loop."""

    def __init__(self, options: Options, name: str) -> None:
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[str] = self._loop.create_future()
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=options["client_id"] or f"apimgmt-{name}",
            protocol=paho.MQTTv5,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        if options["tls"]:
            client.tls_set()
        if options["username"]:
            client.username_pw_set(options["username"], options["password"])
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        self._client = client

    async def _open(self) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_S
        properties.ReceiveMaximum = BATCH_MAX
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.to_thread(
                    self._client.connect,
                    self._options["host"],
                    self._options["port"],
                    KEEPALIVE_S,
                    clean_start=False,
                    properties=properties,
                )
                self._client.loop_start()
                await self._connected
        except (OSError, TimeoutError) as error:
            raise BrokerUnavailable(f"MQTT: {type(error).__name__}: {error}") from error

    async def close(self) -> None:
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)
        for future in (self._connected, self._lost):
            future.cancel()

    def _require_link(self) -> None:
        if self._lost.done():
            raise BrokerUnavailable(f"MQTT: the connection was lost: {self._lost.result()}")

    def _call(self, function: Any, *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    # Called in the thread of paho-mqtt

    def _on_connect(self, client: paho.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._call(_fail, self._connected, BrokerUnavailable(f"MQTT: refused: {reason}"))
        else:
            self._call(_settle, self._connected, None)

    def _on_disconnect(self, client: paho.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._call(_fail, self._connected, BrokerUnavailable(f"MQTT: disconnected: {reason}"))
        self._call(_settle, self._lost, str(reason))


class MqttSource(_Connection):
    """Subscribes with a persistent session; a message is acknowledged once its event is stored."""

    async def open(self) -> None:
        self._came: asyncio.Queue[paho.MQTTMessage] = asyncio.Queue()
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        self._subscribed: asyncio.Future[None] = self._loop.create_future()
        await self._open()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                self._client.subscribe(self._options["topic"], self._options["qos"])
                await self._subscribed
        except TimeoutError as error:
            raise BrokerUnavailable("MQTT: the subscription was not answered") from error

    async def read(self) -> Sequence[Record]:
        try:
            async with asyncio.timeout(READ_WAIT_S):
                messages = [await self._came.get()]
        except TimeoutError:
            self._require_link()
            return []
        while not self._came.empty() and len(messages) < BATCH_MAX:
            messages.append(self._came.get_nowait())
        return [_record(message) for message in messages]

    async def commit(self, records: Sequence[Record]) -> None:
        self._require_link()
        for record in records:
            message = record.handle
            if message.qos and self._client.ack(message.mid, message.qos) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise BrokerUnavailable("MQTT: the connection was lost")

    def _on_message(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        self._call(self._came.put_nowait, message)

    def _on_subscribe(self, client: paho.Client, data: Any, mid: int, reasons: Any, properties: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._call(_fail, self._subscribed, BrokerUnavailable(f"MQTT: the subscription was refused: {reasons[0]}"))
        else:
            self._call(_settle, self._subscribed, None)


class MqttSink(_Connection):
    """Publishes with QoS 1."""

    async def open(self) -> None:
        self._sent: dict[int, asyncio.Future[None]] = {}
        self._client.on_publish = self._on_publish
        await self._open()

    async def write(self, events: Sequence[Event]) -> None:
        self._require_link()
        waiting = [self._publish(event) for event in events]
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.gather(*waiting)
        except TimeoutError as error:
            raise BrokerUnavailable("MQTT: publishes were not acknowledged") from error
        finally:
            self._sent.clear()

    def _publish(self, event: Event) -> asyncio.Future[None]:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        header_fields = headers.written(event, "")
        properties.ContentType = header_fields.pop("content-type")
        properties.UserProperty = list(header_fields.items())
        if event.expires_at is not None:
            properties.MessageExpiryInterval = seconds_left(event.expires_at, time.time())
        topic = fill_placeholders(self._options["topic"], event_placeholders(event))
        info = self._client.publish(topic, event.data, 1, self._options["retain"], properties)
        if info.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_QUEUE_SIZE):
            raise BrokerUnavailable("MQTT: the connection was lost")
        return self._sent.setdefault(info.mid, self._loop.create_future())

    def _on_publish(self, client: paho.Client, data: Any, mid: int, reason: Any, properties: Any) -> None:
        self._call(self._acknowledged, mid, reason)

    def _acknowledged(self, mid: int, reason: Any) -> None:
        future = self._sent.setdefault(mid, self._loop.create_future())
        if reason.is_failure:
            _fail(future, BrokerUnavailable(f"MQTT: the broker refused a publish: {reason}"))
        else:
            _settle(future, None)


def _record(message: paho.MQTTMessage) -> Record:
    header_fields = dict(getattr(message.properties, "UserProperty", ()))
    # CloudEvents' MQTT binding has no prefix: `specversion` tells an event from other messages.
    attributes, _, traceparent = headers.read(header_fields, ("",) if "specversion" in header_fields else ("ce-",))
    interval_s = getattr(message.properties, "MessageExpiryInterval", None)
    if interval_s is not None:
        attributes = with_interval(attributes, interval_s, time.time())
    content_type, data = getattr(message.properties, "ContentType", None), bytes(message.payload)
    return Record(
        id="",
        data=data,
        handle=message,
        placeholders={"topic": message.topic},
        content_type=content_type or "",
        attributes=attributes,
        traceparent=traceparent,
    )


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: BrokerUnavailable) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # marked as retrieved, as nothing may be waiting for it
