"""Records in a stream of JetStream, the last message of a subject each: a write replaces the one that was read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import APIError, BadRequestError, NotFoundError

from gateway.refusals import Refused

T = TypeVar("T")

_WRONG_LAST_SEQUENCE = 10071
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"


class RecordChanged(Exception):
    """The record is not the one that the write was to replace."""


class Records:
    """The records of one stream. Every method raises what ``unavailable`` returns unless JetStream answers in time."""

    def __init__(
        self, js: JetStreamContext, stream: str, unavailable: Callable[[], Refused], *, timeout_s: float
    ) -> None:
        self._js = js
        self._stream = stream
        self._unavailable = unavailable
        self._timeout_s = timeout_s

    async def read(self, subject: str) -> tuple[bytes | None, int]:
        """Return the record of a subject, None if there is none, and its sequence."""
        try:
            message = await self.in_time(self._js.get_last_msg(self._stream, subject))
        except NotFoundError:
            return None, 0
        return message.data or b"", message.seq or 0

    async def write(self, subject: str, data: bytes, sequence: int) -> int:
        """Replace the record of a sequence, 0 for none; return the new sequence. Raises RecordChanged."""
        try:
            stored = await self.in_time(self._js.publish(subject, data, headers={_EXPECTED: str(sequence)}))
        except BadRequestError:
            raise RecordChanged from None
        return stored.seq

    async def delete(self, subject: str) -> None:
        """Delete the record of a subject, if there is one."""
        await self.in_time(self._js.purge_stream(self._stream, subject=subject))

    async def in_time(self, request: Awaitable[T]) -> T:
        """Return what JetStream answers. Raises NotFoundError, and BadRequestError for a record that changed."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await request
        except NotFoundError:
            raise
        except (TimeoutError, OSError, APIError, NatsError) as error:
            if isinstance(error, BadRequestError) and error.err_code == _WRONG_LAST_SEQUENCE:
                raise
            raise self._unavailable() from error
