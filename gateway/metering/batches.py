"""Usage batches: records cut into messages that NATS accepts, kept in order until it has stored them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from nats.errors import MaxPayloadError
from nats.js.errors import APIError

from gateway.concurrency.log_throttle import LogThrottle

if TYPE_CHECKING:
    from nats.js import JetStreamContext

logger = logging.getLogger(__name__)

BATCHES_KEPT = 600
"""Batches kept while NATS is unavailable: ten minutes of them. Beyond, the oldest are dropped and counted."""
BYTES_KEPT = 32 * 1024 * 1024
"""The bytes of these batches together."""
RECORDS_A_BATCH = 500
BATCH_MAX_BYTES = 256 * 1024
"""The records of one batch: a quarter of what NATS accepts in a message by default (``max_payload``, 1 MiB)."""
HEADERS_BYTES = 1024
"""Reserved for the headers of a message: NATS disconnects a client whose message is too large with them."""
LISTS = ("tallies", "opened", "flowing", "closed", "limits")
_MESSAGE_TOO_LARGE = 10054
"""Error code of JetStream: the message exceeds the maximum of its stream."""

Record = tuple[str, bytes]
"""The list of a batch that it belongs to, and its JSON."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One message to NATS."""

    message_id: str
    data: bytes


class Batches:
    """A bounded queue of batches, sent in order; one that NATS refuses for its size never blocks the others."""

    def __init__(
        self,
        js: JetStreamContext,
        subject: str,
        *,
        dropped: Callable[[], None],
        too_large: Callable[[], None],
        max_payload: Callable[[], int],
    ) -> None:
        self._js = js
        self._subject = subject
        self._dropped = dropped
        """Counts a batch or record that is lost."""
        self._too_large = too_large
        """Counts a batch that is too large for NATS."""
        self._max_payload = max_payload
        """Returns the most bytes of a message, headers included, that NATS accepts."""
        self._waiting: deque[Batch] = deque()
        self._bytes = 0
        self._throttle = LogThrottle()

    def __len__(self) -> int:
        return len(self._waiting)

    def encode(self, records: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Record]:
        """Encode records; one that cannot be encoded, or is larger than a whole batch may be, is dropped."""
        encoded: list[Record] = []
        for name, record in records:
            try:
                data = orjson.dumps(record)
            except orjson.JSONEncodeError:
                self._lose("a record cannot be encoded as JSON")
                continue
            if len(data) > BATCH_MAX_BYTES:
                self._lose(f"a record of {len(data)} bytes is too large")
                continue
            encoded.append((name, data))
        return encoded

    def add(self, message_id: str, head: Mapping[str, Any], records: Iterable[Record]) -> None:
        """Queue a batch. Beyond ``BATCHES_KEPT`` and ``BYTES_KEPT``, the oldest batches are dropped."""
        lists: dict[str, list[orjson.Fragment]] = {name: [] for name in LISTS}
        for name, record in records:
            lists[name].append(orjson.Fragment(record))
        batch = Batch(message_id, orjson.dumps({**head, **lists}))
        self._waiting.append(batch)
        self._bytes += len(batch.data)
        while len(self._waiting) > BATCHES_KEPT or (self._bytes > BYTES_KEPT and len(self._waiting) > 1):
            self._remove_first()
            self._dropped()

    async def send(self) -> None:
        """Send all batches that wait. Raises if NATS is unavailable; what is left is sent by the next call."""
        while self._waiting:
            batch = self._waiting[0]
            try:
                if len(batch.data) + HEADERS_BYTES > self._max_payload():
                    raise MaxPayloadError
                # By its message id, a batch whose acknowledgement was lost is stored once.
                await self._js.publish(self._subject, batch.data, timeout=1, headers={"Nats-Msg-Id": batch.message_id})
                parts: list[Batch] = []
            except (MaxPayloadError, APIError) as error:
                if isinstance(error, APIError) and error.err_code != _MESSAGE_TOO_LARGE:
                    raise
                parts = self._split(batch)
            if self._waiting and self._waiting[0] is batch:
                self._remove_first()
                self._waiting.extendleft(reversed(parts))
                self._bytes += sum(len(part.data) for part in parts)

    def _split(self, batch: Batch) -> list[Batch]:
        """Return the halves of a batch that NATS refused for its size; none, if it has a single record."""
        self._too_large()
        content = orjson.loads(batch.data)
        records = [(name, orjson.dumps(record)) for name in LISTS for record in content[name]]
        if len(records) < 2:
            self._lose(f"NATS refused a record of {len(batch.data)} bytes as too large")
            return []
        self._log(f"NATS refused a batch of {len(batch.data)} bytes as too large; it is split")
        half = len(records) // 2
        halves = []
        for number, part in enumerate((records[:half], records[half:]), 1):
            lists = {name: [orjson.Fragment(record) for of, record in part if of == name] for name in LISTS}
            is_last = number == 2
            head = {"stopping": content["stopping"] and is_last}
            halves.append(Batch(f"{batch.message_id}.{number}", orjson.dumps({**content, **head, **lists})))
        return halves

    def _lose(self, what: str) -> None:
        self._dropped()
        self._log(f"{what}; it is not accounted")

    def _log(self, text: str) -> None:
        suffix = self._throttle.suffix("usage")
        if suffix is not None:
            logger.error("usage: %s%s", text, suffix)

    def _remove_first(self) -> None:
        self._bytes -= len(self._waiting.popleft().data)


def cut(records: list[Record]) -> Iterable[list[Record]]:
    """Cut records into batches by their number and their bytes; at least one batch, which may be empty."""
    part: list[Record] = []
    size = 0
    for record in records:
        if part and (len(part) >= RECORDS_A_BATCH or size + len(record[1]) > BATCH_MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(record)
        size += len(record[1]) + 1
    yield part
