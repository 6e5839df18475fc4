"""MQTT sessions: which QoS 2 packet ids a client has released, in a stream that all hosts share.

The log stores a QoS 2 publish under a message id made of its session, its packet id and the number of that id's use, so
a client that sends it again to another process finds it stored. A record is written when a connection claims the
session and before each PUBCOMP, not for a PUBLISH. A write names what it replaces, and fails if that changed: a
connection whose client has connected elsewhere never overwrites the state of the newer one.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from nats.aio.client import Client
from nats.js import JetStreamContext

from gateway.durable.records import RecordChanged, Records
from gateway.link.nats import MQTT_SESSIONS_STREAM, MQTT_SESSIONS_SUBJECT, read_batch
from gateway.log.event_log import EventLog
from gateway.log.unavailable import log_unavailable
from gateway.wire.digest import digest_of
from gateway.wire.mqtt.uses import Uses

TIMEOUT_S = 1.0
TRIES = 10
"""How often a session is claimed that other connections claim at the same time."""
SESSIONS_MAX = 10_000
"""Records of one consumer; a further one replaces its oldest."""


class TakenOver(Exception):
    """The same client connected again (MQTT-3.1.4-3), perhaps to another process."""


@dataclass(slots=True)
class Record:
    """What is kept of a session."""

    holder: str
    """The connection that claimed it last."""
    generation: str = field(default_factory=lambda: secrets.token_hex(8))
    """Another one after each clean start."""
    uses: Uses = field(default_factory=Uses)

    def encoded(self) -> bytes:
        """Return the record as it is stored."""
        return orjson.dumps(
            {
                "holder": self.holder,
                "generation": self.generation,
                "floor": self.uses.floor,
                "counted": list(self.uses.counted.items()),
            }
        )

    @classmethod
    def decoded(cls, data: bytes) -> Record:
        """Parse a stored record."""
        members: dict[str, Any] = orjson.loads(data)
        uses = Uses(members["floor"], dict(members["counted"]))
        return cls(members["holder"], members["generation"], uses)


class MqttSessions:
    """The records. Every method raises Refused ``overloaded`` while NATS is unavailable."""

    def __init__(self, client: Client, js: JetStreamContext, log: EventLog) -> None:
        self._client = client
        self._records = Records(js, MQTT_SESSIONS_STREAM, log_unavailable, timeout_s=TIMEOUT_S)
        self._log = log

    async def claim(self, consumer: str, client: str, holder: str, *, is_clean: bool) -> Claim:
        """Claim the session of a consumer's client for a connection; after a clean start it is a new one."""
        await self._log.require_reply()
        subject = _subject(consumer, client)
        for _ in range(TRIES):
            record, sequence = await self.read(subject)
            if record is None:
                await self._make_room(consumer)
            resumed = None if is_clean else record
            claimed = Record(holder) if resumed is None else replace(resumed, holder=holder)
            try:
                sequence = await self.write(subject, claimed.encoded(), sequence)
            except RecordChanged:
                continue
            return Claim(self, subject, claimed, sequence, is_resumed=resumed is not None)
        raise log_unavailable()

    async def forget(self, consumer: str, client: str) -> None:
        """Delete the session of a client, if there is one."""
        await self._log.require_reply()
        subject = _subject(consumer, client)
        record, _ = await self.read(subject)
        if record is not None:
            await self._records.delete(subject)

    async def read(self, subject: str) -> tuple[Record | None, int]:
        """Return the record of a session, None if there is none, and its sequence."""
        data, sequence = await self._records.read(subject)
        return None if data is None else Record.decoded(data), sequence

    async def write(self, subject: str, data: bytes, sequence: int) -> int:
        """Replace the record of a sequence, 0 for none; return the new one. Raises RecordChanged."""
        self._log.require_available()
        return await self._records.write(subject, data, sequence)

    async def _make_room(self, consumer: str) -> None:
        """Delete the oldest record of a consumer that has as many as it may have."""
        subject = _subject(consumer, None)
        oldest = await self._records.in_time(read_batch(self._client, MQTT_SESSIONS_STREAM, subject, 1, 1))
        for message in oldest:
            headers = message.headers or {}
            if int(headers.get("Nats-Num-Pending", 0)) + 1 >= SESSIONS_MAX:
                await self._records.delete(headers["Nats-Subject"])


class Claim:
    """The session of a client as one connection holds it."""

    def __init__(
        self, sessions: MqttSessions, subject: str, record: Record, sequence: int, *, is_resumed: bool
    ) -> None:
        self._sessions = sessions
        self._subject = subject
        self._record = record
        self._sequence = sequence
        self._is_saving = asyncio.Lock()
        self.is_resumed = is_resumed
        """Whether an earlier connection has used it."""

    @property
    def uses(self) -> Uses:
        """The uses of its packet ids; a change is kept from the next :meth:`save` on."""
        return self._record.uses

    def identity(self, packet_id: int) -> str:
        """Return what identifies the publish that now has this packet id, also when it is sent to another process."""
        return f"{self._record.generation}.{packet_id}.{self.uses.number(packet_id)}"

    async def save(self) -> None:
        """Store the record as it is now. Raises TakenOver once another connection has claimed the session."""
        async with self._is_saving:
            for _ in range(TRIES):
                try:
                    self._sequence = await self._sessions.write(self._subject, self._record.encoded(), self._sequence)
                except RecordChanged:
                    await self._find()
                else:
                    return
            raise log_unavailable()

    async def _find(self) -> None:
        """Look up the record to replace: it may have expired, or an earlier write was stored but not confirmed."""
        record, self._sequence = await self._sessions.read(self._subject)
        if record is not None and record.holder != self._record.holder:
            raise TakenOver


def _subject(consumer: str, client: str | None) -> str:
    """Return the subject of a client's record; of all records of the consumer without a client."""
    last = "*" if client is None else digest_of([client.encode()])
    return f"{MQTT_SESSIONS_SUBJECT}.{digest_of([consumer.encode()])}.{last}"
