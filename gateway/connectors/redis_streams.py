"""Redis Streams, by redis-py. An entry has the field ``data``, and the attributes as fields ``ce-…``."""

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
    Broken,
    Options,
    Record,
    event_places,
    placed,
    text,
    whole,
)
from gateway.log.event import Event

PREFIX = "ce-"
DATA = "data"
_FAULTS = (RedisError, OSError, TimeoutError)
_LINK = (text("url", is_required=True), text("username"), text("password", is_secret=True))
SOURCE_OPTIONS = (*_LINK, text("stream", is_required=True), text("group", is_required=True))
SINK_OPTIONS = (*_LINK, text("stream", default="{address}"), whole("max_length", 1, 10**12, default=1_000_000))


class _Linked:
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


class RedisSource(_Linked):
    """Reads a stream as one consumer of a group: first what it was given before and has not acknowledged."""

    _position = "0"

    async def open(self) -> None:
        try:
            await self._redis.xgroup_create(self._options["stream"], self._options["group"], id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise Broken(_said(error)) from error
        except _FAULTS as error:
            raise Broken(_said(error)) from error

    async def read(self) -> Sequence[Record]:
        stream, group = self._options["stream"], self._options["group"]
        try:
            found: Any = await self._redis.xreadgroup(
                group, self._name, {stream: self._position}, count=BATCH_MAX, block=int(READ_WAIT_S * 1000)
            )
        except _FAULTS as error:
            raise Broken(_said(error)) from error
        entries = found[0][1] if found else []
        if self._position != ">":
            # What was left from before is read through once; then comes what is new.
            self._position = entries[-1][0].decode() if entries else ">"
        return [_record(stream, entry_id, fields) for entry_id, fields in entries if fields]

    async def commit(self, records: Sequence[Record]) -> None:
        try:
            await self._redis.xack(
                self._options["stream"], self._options["group"], *(record.handle for record in records)
            )
        except _FAULTS as error:
            raise Broken(_said(error)) from error


class RedisSink(_Linked):
    """Appends to a stream, cut to about ``max_length`` entries."""

    async def open(self) -> None:
        try:
            await self._redis.ping()
        except _FAULTS as error:
            raise Broken(_said(error)) from error

    async def write(self, events: Sequence[Event]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for event in events:
            fields: dict[Any, Any] = {DATA: event.data, **headers.written(event, PREFIX)}
            stream = placed(self._options["stream"], event_places(event))
            pipeline.xadd(stream, fields, maxlen=self._options["max_length"], approximate=True)
        try:
            await pipeline.execute()
        except _FAULTS as error:
            raise Broken(_said(error)) from error


def _record(stream: str, entry_id: bytes, fields: dict[bytes, bytes]) -> Record:
    given = {name.decode("utf-8", "replace"): value for name, value in fields.items()}
    data = given.pop(DATA, None)
    texts = {name: value.decode("utf-8", "replace") for name, value in given.items()}
    attributes, _, traceparent = headers.read(texts, (PREFIX,))
    if data is None:
        # An entry of somebody who knows nothing of us: its fields are the event.
        data, texts = orjson.dumps(texts), {}
    return Record(
        id=f"{stream}/{entry_id.decode()}",
        data=data,
        handle=entry_id,
        places={"topic": stream},
        content_type=headers.content_type_of(data, texts.get("content-type")),
        attributes=attributes,
        traceparent=traceparent,
    )


def _said(error: BaseException) -> str:
    return f"Redis: {type(error).__name__}: {error}"[:300]
