"""Redis Streams, by redis-py. An entry has a field ``data``, and the attributes as fields ``ce-…``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import redis.asyncio as redis
from redis.exceptions import RedisError, ResponseError

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
    whole,
)
from gateway.log.event import Event

PREFIX = "ce-"
DATA = "data"
_FAULTS = (RedisError, OSError, TimeoutError)
_CONNECTION_OPTIONS = (text("url", is_required=True), text("username"), text("password", is_secret=True))
SOURCE_OPTIONS = (*_CONNECTION_OPTIONS, text("stream", is_required=True), text("group", is_required=True))
SINK_OPTIONS = (
    *_CONNECTION_OPTIONS,
    text("stream", default="{address}"),
    whole("max_length", 1, 10**12, default=1_000_000),
)


class _Connection:
    def __init__(self, options: Options, name: str) -> None:
        self._options = options
        self._name = name
        self._redis = redis.Redis.from_url(
            options["url"],
            username=options["username"],
            password=options["password"],
            client_name=name,
            socket_timeout=CONNECT_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
        )

    async def close(self) -> None:
        await self._redis.aclose()


class RedisSource(_Connection):
    """Reads a stream as one consumer of a group: first the entries that it had not acknowledged before."""

    _position = "0"

    async def open(self) -> None:
        try:
            await self._redis.xgroup_create(self._options["stream"], self._options["group"], id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise BrokerUnavailable(_describe(error)) from error
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error

    async def read(self) -> Sequence[Record]:
        stream, group = self._options["stream"], self._options["group"]
        try:
            streams: Any = await self._redis.xreadgroup(
                group, self._name, {stream: self._position}, count=BATCH_MAX, block=int(READ_WAIT_S * 1000)
            )
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error
        entries = streams[0][1] if streams else []
        if self._position != ">":
            # Unacknowledged entries are read once, then new ones.
            self._position = entries[-1][0].decode() if entries else ">"
        return [_record(stream, entry_id, fields) for entry_id, fields in entries if fields]

    async def commit(self, records: Sequence[Record]) -> None:
        try:
            await self._redis.xack(
                self._options["stream"], self._options["group"], *(record.handle for record in records)
            )
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error


class RedisSink(_Connection):
    """Appends to a stream, trimmed to about ``max_length`` entries."""

    async def open(self) -> None:
        try:
            await self._redis.ping()
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error

    async def write(self, events: Sequence[Event]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for event in events:
            fields: dict[Any, Any] = {DATA: event.data, **headers.written(event, PREFIX)}
            stream = fill_placeholders(self._options["stream"], event_placeholders(event))
            pipeline.xadd(stream, fields, maxlen=self._options["max_length"], approximate=True)
        try:
            await pipeline.execute()
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error


def _record(stream: str, entry_id: bytes, fields: dict[bytes, bytes]) -> Record:
    header_fields = {name.decode("utf-8", "replace"): value for name, value in fields.items()}
    data = header_fields.pop(DATA, None)
    texts = {name: value.decode("utf-8", "replace") for name, value in header_fields.items()}
    attributes, _, traceparent = headers.read(texts, (PREFIX,))
    if data is None:
        # An entry without `data`: all its fields together are the event.
        data, texts = orjson.dumps(texts), {}
    return Record(
        id=f"{stream}/{entry_id.decode()}",
        data=data,
        handle=entry_id,
        placeholders={"topic": stream},
        content_type=texts.get("content-type") or "",
        attributes=attributes,
        traceparent=traceparent,
    )


def _describe(error: BaseException) -> str:
    return f"Redis: {type(error).__name__}: {error}"[:300]
