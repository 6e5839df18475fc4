"""Google Pub/Sub, by gcloud-aio-pubsub (REST). Attributes by CloudEvents' Pub/Sub binding (prefix ``ce-``)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout
from gcloud.aio.pubsub import PublisherClient, PubsubMessage, SubscriberClient

from gateway.connectors import headers
from gateway.connectors.broker import (
    BATCH_MAX,
    CONNECT_TIMEOUT_S,
    HOLD_S,
    READ_WAIT_S,
    BrokerUnavailable,
    Options,
    Record,
    event_placeholders,
    fill_placeholders,
    text,
)
from gateway.log.event import Event

PREFIX = "ce-"
_FAULTS = (ClientError, OSError, TimeoutError)
_CONNECTION_OPTIONS = (text("project", is_required=True), text("service_file"), text("endpoint"))
SOURCE_OPTIONS = (*_CONNECTION_OPTIONS, text("subscription", is_required=True))
SINK_OPTIONS = (*_CONNECTION_OPTIONS, text("topic", is_required=True), text("ordering_key"))


class _Connection:
    def __init__(self, options: Options, name: str) -> None:
        self._options = options
        self._http = ClientSession(
            timeout=ClientTimeout(CONNECT_TIMEOUT_S + READ_WAIT_S), headers={"User-Agent": f"apimgmt/{name}"}
        )

    @property
    def _client_options(self) -> dict[str, Any]:
        return {
            "session": self._http,
            "service_file": self._options["service_file"],
            "api_root": self._options["endpoint"],
        }

    async def close(self) -> None:
        await self._http.close()


class PubsubSource(_Connection):
    """Pulls a subscription; a message is acknowledged once its event is stored."""

    async def open(self) -> None:
        self._client = SubscriberClient(**self._client_options)
        self._path = SubscriberClient.subscription_path(self._options["project"], self._options["subscription"])
        try:
            await self._client.get_subscription(self._path, timeout=int(CONNECT_TIMEOUT_S))
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error

    async def read(self) -> Sequence[Record]:
        try:
            messages = await self._client.pull(self._path, BATCH_MAX, timeout=int(CONNECT_TIMEOUT_S))
        except TimeoutError:
            return []
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error
        if not messages:
            await asyncio.sleep(READ_WAIT_S)
            return []
        records = [_record(self._options["subscription"], message) for message in messages]
        await self.hold(records)
        return records

    async def hold(self, records: Sequence[Record]) -> None:
        ids = [record.handle for record in records]
        try:
            await self._client.modify_ack_deadline(self._path, ids, HOLD_S, timeout=int(CONNECT_TIMEOUT_S))
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error

    async def commit(self, records: Sequence[Record]) -> None:
        try:
            await self._client.acknowledge(self._path, [record.handle for record in records])
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error


class PubsubSink(_Connection):
    """Publishes to a topic."""

    async def open(self) -> None:
        self._client = PublisherClient(**self._client_options)
        self._path = PublisherClient.topic_path(self._options["project"], self._options["topic"])

    async def write(self, events: Sequence[Event]) -> None:
        try:
            await self._client.publish(
                self._path, [self._message(event) for event in events], timeout=int(CONNECT_TIMEOUT_S)
            )
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error

    def _message(self, event: Event) -> PubsubMessage:
        ordering_key = fill_placeholders(self._options["ordering_key"] or "", event_placeholders(event))
        return PubsubMessage(event.data, ordering_key, **headers.written(event, PREFIX))


def _record(subscription: str, message: Any) -> Record:
    fields = {str(name): str(value) for name, value in (message.attributes or {}).items()}
    data = message.data or b""
    attributes, _, traceparent = headers.read(fields, (PREFIX,))
    return Record(
        id=f"{subscription}/{message.message_id}",
        data=data,
        handle=message.ack_id,
        placeholders={"subscription": subscription},
        content_type=fields.get("content-type") or "",
        attributes=attributes,
        traceparent=traceparent,
    )


def _describe(error: BaseException) -> str:
    return f"Pub/Sub: {type(error).__name__}: {error}"[:300]
