"""Usage of this process: tallied in memory and sent to the control plane in batches, off the path of requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nats.aio.client import DEFAULT_MAX_PAYLOAD_SIZE

from gateway.concurrency.stopping import stop_tasks
from gateway.link.nats import USAGE_SUBJECT
from gateway.metering.batches import RECORDS_A_BATCH, Batches, Record, cut
from gateway.metering.labels import Label, Labels, bounded
from gateway.metering.process_metrics import ProcessMetrics
from gateway.protocol import Protocol
from gateway.refusals import Packet

if TYPE_CHECKING:
    from nats.js import JetStreamContext

    from gateway.call import Call, Reply
    from gateway.config import Config
    from gateway.connections.open import Connection, Connections
    from gateway.snapshot.picture import Snapshot

logger = logging.getLogger(__name__)

FLUSH_S = 1.0
HEARTBEAT_S = 5.0
"""The longest time between two batches, also of an idle process."""
FLOWING_EVERY = 5
"""Every so many batches, open connections and consumers near a limit are reported."""
FLOWED = ("messages_in", "messages_out", "bytes_in", "bytes_out", "throttled")
LABELS_MAX = 5_000
"""Labels per flush. Tallies beyond it are dropped and counted, so that a flood of names takes no memory."""


def _no_limits(*, with_levels: bool) -> list[dict[str, Any]]:
    return []


class Tally:
    """The amounts of one label since the last flush."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "calls",
        "latency_max",
        "latency_sum",
        "messages_in",
        "messages_out",
        "throttled",
    )

    def __init__(self) -> None:
        self.calls = 0
        self.messages_in = 0
        self.messages_out = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.throttled = 0
        self.latency_sum = 0.0
        self.latency_max = 0.0

    def counted(self) -> tuple[int, ...]:
        """Return the amounts in the order of ``process_metrics.COUNTED``."""
        return (self.calls, self.messages_in, self.messages_out, self.bytes_in, self.bytes_out, self.throttled)


class Usage:
    """Tallies the usage of this process and sends it."""

    def __init__(
        self,
        config: Config,
        connections: Connections,
        snapshot: Snapshot,
        js: JetStreamContext,
        *,
        limits: Callable[..., list[dict[str, Any]]] = _no_limits,
        max_payload: Callable[[], int] = lambda: DEFAULT_MAX_PAYLOAD_SIZE,
    ) -> None:
        self._config = config
        self._limits = limits
        """Returns and resets what limits did (see :class:`gateway.limits.tallies.LimitUsage`)."""
        self._connections = connections
        self._labels = Labels(snapshot)
        self._tallies: dict[Label, Tally] = {}
        self._closed: list[dict[str, Any]] = []
        self._sequence = 0
        self._dropped = 0
        self._flushed_at = time.monotonic()
        self._sent_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self.metrics = ProcessMetrics(self._open_counts, lambda: len(self._batches))
        self._batches = Batches(
            js,
            f"{USAGE_SUBJECT}.{config.process}",
            dropped=self._drop,
            too_large=self.metrics.batch_too_large,
            max_payload=max_payload,
        )

    def call_ended(self, call: Call, reply: Reply, latency_ms: float) -> None:
        """Count a call without a row in the ledger: a request, or a refused handshake."""
        refused = reply.refused
        error_class = _error_class(reply, at_handshake=True)
        label = self._labels.of(call, _outcome(reply), error_class, is_refused=refused is not None)
        tally = self.request_ended(label, reply.status, reply.bytes_in, reply.bytes_out, latency_ms)
        tally.messages_in += reply.messages_in
        tally.messages_out += reply.messages_out
        if refused is not None:
            self.metrics.refused(call.protocol, refused.reason)

    def label_of(self, call: Call) -> Label:
        """Return the label of requests of a call that end well, for :meth:`request_ended`."""
        return self._labels.of(call, "ok", "", is_refused=False)

    def request_ended(self, label: Label, status: int, bytes_in: int, bytes_out: int, latency_ms: float) -> Tally:
        """Count a request under its label, and return the tally of that."""
        tally = self._tally(label)
        tally.calls += 1
        tally.bytes_in += bytes_in
        tally.bytes_out += bytes_out
        tally.latency_sum += latency_ms
        if latency_ms > tally.latency_max:
            tally.latency_max = latency_ms
        if status == 429:
            tally.throttled += 1
        self.metrics.observe_latency(label[0], latency_ms)
        return tally

    def delivered(self, call: Call, messages: int, bytes_: int) -> None:
        """Count what was sent for a consumer without a call of it, such as a webhook."""
        tally = self._tally(self._labels.of(call, "ok", "", is_refused=False))
        tally.messages_out += messages
        tally.bytes_out += bytes_

    def connection_closed(self, connection: Connection, reply: Reply) -> None:
        """Tally the last messages of a connection, and send its row of the ledger."""
        if connection.closing is not None and reply.refused is None:
            reply = replace(reply, refused=connection.closing)
        self._sweep(connection)
        error_class = _error_class(reply, at_handshake=False)
        # A connection that was refused after it had opened is labelled as it was while it was open.
        tally = self._tally(self._labels.of(connection.call, _outcome(reply), error_class, is_refused=False))
        tally.calls += 1
        if reply.refused is not None:
            self.metrics.refused(connection.call.protocol, reply.refused.reason)
        self._closed.append(
            _opened(connection)
            | {
                "closed_at": time.time(),
                "closed_by": reply.closed_by or ("gateway" if reply.refused else "client"),
                "close_code": reply.close_code or _close_code(connection.call, reply),
                "error_class": error_class,
                "messages_in": connection.messages_in,
                "messages_out": connection.messages_out,
                "bytes_in": connection.bytes_in,
                "bytes_out": connection.bytes_out,
                "throttled": connection.throttled,
            }
        )

    def start(self) -> None:
        """Start to send batches."""
        self._task = asyncio.create_task(self._run(), name="usage")

    async def stop(self) -> None:
        """Send what is left, marked as the last of this process. Waits at most 2 s."""
        await stop_tasks(self._task)
        self._gather(is_stopping=True)
        try:
            async with asyncio.timeout(2):
                await self._batches.send()
        except Exception:
            logger.warning("usage: %d batches could not be sent before the process stopped", len(self._batches))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                self._gather()
                await self._batches.send()
            except Exception as error:
                logger.warning(
                    "usage: %d batches could not be sent yet: %s",
                    len(self._batches),
                    str(error) or type(error).__name__,
                )

    def _tally(self, label: Label) -> Tally:
        tally = self._tallies.get(label)
        if tally is None:
            if len(self._tallies) >= LABELS_MAX:
                self._drop()
                return Tally()
            tally = self._tallies[label] = Tally()
        return tally

    def _drop(self) -> None:
        self._dropped += 1
        self.metrics.dropped()

    def _sweep(self, connection: Connection) -> None:
        """Tally what has flowed over a connection since the last sweep."""
        now = (
            connection.messages_in,
            connection.messages_out,
            connection.bytes_in,
            connection.bytes_out,
            connection.throttled,
        )
        if now != connection.tallied:
            tally = self._tally(self._labels.of(connection.call, "ok", "", is_refused=False))
            was = connection.tallied
            tally.messages_in += now[0] - was[0]
            tally.messages_out += now[1] - was[1]
            tally.bytes_in += now[2] - was[2]
            tally.bytes_out += now[3] - was[3]
            tally.throttled += now[4] - was[4]
            connection.tallied = now
        if connection.refusals:
            for cause, count in connection.refusals.items():
                self._tally(self._labels.of(connection.call, cause, "", is_refused=False)).calls += count
            connection.refusals = {}
            for reason, count in connection.refused_reasons.items():
                self.metrics.refused(connection.call.protocol, reason, count)
            connection.refused_reasons = {}

    def _gather(self, *, is_stopping: bool = False) -> None:
        """Put everything since the last flush into batches."""
        for connection in self._connections:
            self._sweep(connection)
        now = time.monotonic()
        opened, self._connections.opened = self._connections.opened, []
        closed, self._closed = self._closed, []
        tallies, self._tallies = self._tallies, {}
        for label, tally in tallies.items():
            self.metrics.count(label[0], label[5], tally.counted())
        records = [
            *(("opened", _opened(connection)) for connection in opened),
            *(("closed", record) for record in closed),
            *(("flowing", record) for record in self._flowing()),
            *(("tallies", record) for record in _tally_records(tallies)),
            *(("limits", record) for record in self._limits(with_levels=self._sequence % FLOWING_EVERY == 0)),
        ]
        if not records and not is_stopping and now - self._sent_at < HEARTBEAT_S and not len(self._connections):
            self._flushed_at = now
            return
        interval_s, self._flushed_at, self._sent_at = now - self._flushed_at, now, now
        parts = list(cut(self._batches.encode(records)))
        for number, part in enumerate(parts, 1):
            self._enqueue(part, interval_s, is_stopping=is_stopping and number == len(parts))

    def _flowing(self) -> list[dict[str, Any]]:
        """Return the changed accounts of open connections, at most a batch of them, every ``FLOWING_EVERY`` batches."""
        if self._sequence % FLOWING_EVERY:
            return []
        records = []
        for connection in self._connections:
            readings = [{**reading, "channel": bounded(reading["channel"])} for reading in connection.readings()]
            if (connection.tallied, readings) != (connection.reported, connection.reported_readings):
                connection.reported, connection.reported_readings = connection.tallied, readings
                flowed = dict(zip(FLOWED, connection.tallied, strict=True))
                records.append({"id": connection.id, "subscriptions": readings, **flowed})
            if len(records) == RECORDS_A_BATCH:
                break
        return records

    def _enqueue(self, records: list[Record], interval_s: float, *, is_stopping: bool) -> None:
        self._sequence += 1
        head = {
            "process": self._config.process,
            "kind": self._config.kind,
            "sequence": self._sequence,
            "at": time.time(),
            "interval_s": round(interval_s, 3),
            "dropped": self._dropped,
            "stopping": is_stopping,
            "open": [{"protocol": protocol, "count": count} for protocol, count in self._open_counts().items()],
        }
        self._batches.add(f"{self._config.process}-{self._sequence}", head, records)

    def _open_counts(self) -> Counter[str]:
        return Counter(connection.call.protocol.value for connection in self._connections)


def _outcome(reply: Reply) -> str:
    if reply.refused is not None:
        return reply.refused.cause
    if reply.status >= 500:
        return "upstream-error"
    return "abandoned" if reply.status == 499 else "ok"


def _error_class(reply: Reply, *, at_handshake: bool) -> str:
    if reply.refused is None or reply.error_class:
        # The handler sets the class of a response that failed after it had begun.
        return reply.error_class
    row = reply.refused.row
    return (row.handshake if at_handshake else row.live).value


def _close_code(call: Call, reply: Reply) -> int:
    """Return the close code of the connection's protocol."""
    if reply.refused is None:
        return 0
    row = reply.refused.row
    return row.mqtt5.get(Packet.DISCONNECT, 0) if call.protocol is Protocol.MQTT else row.websocket


def _opened(connection: Connection) -> dict[str, Any]:
    call = connection.call
    # Behind a route to one of the gateway's own endpoints, the target is the channel.
    route = call.route.name if call.route else ""
    return {
        "id": connection.id,
        "consumer": call.caller.consumer,
        "key": call.caller.key,
        "tier": call.caller.tier,
        "protocol": call.protocol.value,
        "route": bounded(route),
        "channel": bounded(call.parameters.get("address") or ("" if call.target == route else call.target)),
        "ip": call.ip,
        "opened_at": connection.opened_at,
    }


def _tally_records(tallies: dict[Label, Tally]) -> list[dict[str, Any]]:
    minute = int(time.time() // 60 * 60)
    return [
        {
            "minute": minute,
            "protocol": label[0],
            "consumer": label[1],
            "key": label[2],
            "tier": label[3],
            "target": label[4],
            "outcome": label[5],
            "error_class": label[6],
            "calls": tally.calls,
            "messages_in": tally.messages_in,
            "messages_out": tally.messages_out,
            "bytes_in": tally.bytes_in,
            "bytes_out": tally.bytes_out,
            "throttled": tally.throttled,
            "latency_ms_sum": round(tally.latency_sum, 3),
            "latency_ms_max": round(tally.latency_max, 3),
        }
        for label, tally in tallies.items()
    ]
