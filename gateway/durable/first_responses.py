"""First responses: what became of a proxied request with an idempotency key, in a stream that all hosts share.

A record is claimed before the request is sent, so that of two equal requests one is sent; it is renewed while the
request is in progress, and then holds the response. A write names what it replaces, and fails if that changed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson
from nats.js import JetStreamContext

from gateway.durable.records import RecordChanged, Records
from gateway.link.nats import FIRST_RESPONSES_STREAM, FIRST_RESPONSES_SUBJECT
from gateway.refusals import Reason, Refused
from gateway.wire.header_fields import Headers

TIMEOUT_S = 2.0
RENEW_S = 5.0
STALE_S = 30.0
"""A request in progress whose record was not renewed for this long was lost with its process."""
BODY_MAX_BYTES = 512 * 1024
"""The largest body of a response that is kept."""
TRIES = 10
"""How often a record is claimed that others claim and release at the same time."""


class State(StrEnum):
    """What is known of a first request."""

    RUNNING = "running"
    ANSWERED = "answered"
    TOO_LARGE = "too-large"
    """It was answered, but its response was too large to keep."""
    FAILED = "failed"
    """It was refused after it may have reached the upstream."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of a first request."""

    fingerprint: str
    """The hash of the request: a repeat has the same."""
    state: State = State.RUNNING
    status: int = 0
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    reason: str = ""
    """Why it was refused."""
    at: float = 0
    """When it was written, in Unix seconds."""

    def encoded(self, at: float) -> bytes:
        """Return the record as it is stored: a line of JSON, and the body."""
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.headers]
        head = {
            "fingerprint": self.fingerprint, "state": self.state, "status": self.status, "headers": headers,
            "reason": self.reason, "at": at,
        }  # fmt: skip
        return orjson.dumps(head) + b"\n" + self.body

    @classmethod
    def decoded(cls, data: bytes) -> Record:
        """Parse a stored record."""
        line, _, body = data.partition(b"\n")
        head: dict[str, Any] = orjson.loads(line)
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.pop("headers")]
        return cls(**head | {"state": State(head["state"])}, headers=headers, body=body)

    @property
    def is_lost(self) -> bool:
        """Whether the process that made the request ended before the response."""
        return self.state is State.RUNNING and time.time() - self.at > STALE_S


class FirstResponses:
    """The records. Every method raises Refused ``overloaded`` while NATS is unavailable."""

    def __init__(self, js: JetStreamContext) -> None:
        self._records = Records(js, FIRST_RESPONSES_STREAM, _unavailable, timeout_s=TIMEOUT_S)
        self.attempts: set[asyncio.Task[Any]] = set()
        """The requests of this process in progress, also those whose callers have left."""

    async def claim(self, record_id: str, fingerprint: str) -> Claim | Record:
        """Claim a record for a request that is about to be sent, or return what became of the first one."""
        record, sequence = Record(fingerprint), 0
        for _ in range(TRIES):
            try:
                return Claim(
                    self, record_id, record, await self.write(record_id, record.encoded(time.time()), sequence)
                )
            except RecordChanged:
                stored, sequence = await self._read(record_id)
                if stored is not None:
                    return stored
        raise Refused(Reason.IN_FLIGHT, retry_after_s=1)

    async def _read(self, record_id: str) -> tuple[Record | None, int]:
        """Return a record, None if it was released, and its sequence."""
        data, sequence = await self._records.read(_subject(record_id))
        return Record.decoded(data) if data else None, sequence

    async def write(self, record_id: str, data: bytes, sequence: int) -> int:
        """Replace the record of a sequence, 0 for none; return the new one. Raises RecordChanged."""
        return await self._records.write(_subject(record_id), data, sequence)

    async def stop(self, within_s: float) -> None:
        """Wait for the requests in progress, and abandon those that take longer."""
        if self.attempts:
            _, pending = await asyncio.wait(self.attempts, timeout=within_s)
            for attempt in pending:
                attempt.cancel()
            if pending:
                await asyncio.wait(pending, timeout=TIMEOUT_S)


class Claim:
    """A record of a request that this process makes."""

    def __init__(self, records: FirstResponses, record_id: str, record: Record, sequence: int) -> None:
        self._records = records
        self._id = record_id
        self._sequence = sequence
        self.record = record

    async def keep(self) -> None:
        """Renew the record until this is cancelled."""
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self._write(self.record.encoded(time.time()))
            except Refused:
                continue

    async def settle(self, record: Record | None) -> None:
        """Store what became of the request; None releases the record, so that a repeat is sent."""
        await self._write(b"" if record is None else record.encoded(time.time()))

    async def _write(self, data: bytes) -> None:
        self._sequence = await self._records.write(self._id, data, self._sequence)


def _subject(record_id: str) -> str:
    return f"{FIRST_RESPONSES_SUBJECT}.{record_id}"


def _unavailable() -> Refused:
    return Refused(
        Reason.OVERLOADED, "Idempotency keys cannot be looked up right now.", retry_after_s=1, cause="log-away"
    )
