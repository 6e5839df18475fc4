"""Projects usage into tables, exactly once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from django.db import transaction

from analytics.limit_rows import LimitTallies, gather_limits, write_limits
from analytics.models import ConnectionRecord, GatewayProcess, ProjectorPosition, UsageMinute
from audit import bus
from gateway.link.nats import CONTROL_SUBJECT, USAGE_STREAM
from keys.services import touch

logger = logging.getLogger(__name__)

LOST_AFTER = timedelta(seconds=15)
LABEL = ("protocol", "consumer", "key", "tier", "target", "outcome", "error_class")
SUMS = ("calls", "messages_in", "messages_out", "bytes_in", "bytes_out", "throttled", "latency_ms_sum")
FLOWED = ("messages_in", "messages_out", "bytes_in", "bytes_out", "throttled")
TEXT_MAX = {"target": 255, "outcome": 40, "error_class": 20, "consumer": 100, "key": 40, "tier": 100, "protocol": 10}
OPENED = ("consumer", "key", "tier", "protocol", "route", "channel", "ip")
OPENED_MAX = {**TEXT_MAX, "route": 100, "channel": 255, "ip": 45}
"""Characters that a column takes: of a batch with a longer text, nothing would be projected."""
CLOSED = ("closed_by", "close_code", "error_class", "messages_in", "messages_out", "bytes_in", "bytes_out", "throttled")

Batch = Mapping[str, Any]


def position(made_at: str) -> int:
    """Return the sequence up to which the stream created at ``made_at`` has been projected."""
    row = ProjectorPosition.objects.filter(stream=USAGE_STREAM).first()
    return _sequence_of(row, made_at) if row is not None else 0


def project(batches: Iterable[tuple[int, Batch]], made_at: str, *, after: int) -> bool:
    """Write batches and the new position in one transaction.

    Return False and write nothing if the stored position is not ``after``: another projector was faster, or the tables
    are being rebuilt.
    """
    numbered = list(batches)
    tallies: dict[tuple[Any, ...], dict[str, float]] = {}
    used: dict[str, datetime] = {}
    limits: LimitTallies = {}
    with transaction.atomic():
        # The lock is held to the end: of concurrent projectors one continues, the others see a changed position.
        stored = lock_position()
        if _sequence_of(stored, made_at) != after:
            return False
        for sequence, read in numbered:
            batch = without_kept(read, sequence, stored) if stored.made_at == made_at else read
            _gather(tallies, used, batch)
            gather_limits(limits, batch)
            _close_missed(batch)
            _open(batch)
            _flow(batch)
            _close(batch)
            _note_process(batch)
        _write(tallies)
        write_limits(limits)
        touch(used)
        if stored.made_at != made_at:
            stored.kept_before, stored.kept_up_to = None, 0
        stored.made_at, stored.sequence = made_at, numbered[-1][0]
        stored.save()
    return True


def lock_position() -> ProjectorPosition:
    """Return the projector's position, locked until the transaction ends: no roll-up changes meanwhile."""
    return ProjectorPosition.objects.select_for_update().get_or_create(stream=USAGE_STREAM)[0]


def restart_silence(now: datetime) -> None:
    """Count every process as heard of now: after the clock was set, all could seem lost, or none for a long time."""
    GatewayProcess.objects.update(heard_at=now)


def close_lost(now: datetime) -> int:
    """Close the ledger rows of processes that no longer send usage, as of their last batch; return how many."""
    with transaction.atomic():
        lost = list(GatewayProcess.objects.filter(heard_at__lt=now - LOST_AFTER))
        closed = sum(_close_rows_of(process.name, process.heard_at) for process in lost)
        GatewayProcess.objects.filter(name__in=[process.name for process in lost]).delete()
    return closed


def disconnect(row: ConnectionRecord, *, by: str) -> None:
    """Ask the process that holds a connection to close it. Raises bus.Unavailable if NATS is unavailable."""
    bus.publish(f"{CONTROL_SUBJECT}.close", orjson.dumps({"connection": row.pk}))
    logger.info("connection %s of %s: close requested by operator %s", row.pk, row.consumer, by)


def without_kept(batch: Batch, sequence: int, position: ProjectorPosition) -> Batch:
    """Return a batch without what the last rebuild has kept of it."""
    if position.kept_before is None or sequence > position.kept_up_to:
        return batch
    first_s = position.kept_before.timestamp()
    kept = {name: [row for row in batch.get(name, ()) if row["minute"] >= first_s] for name in ("tallies", "limits")}
    return {**batch, **kept}


def _sequence_of(row: ProjectorPosition, made_at: str) -> int:
    return row.sequence if row.made_at == made_at else 0


def _gather(tallies: dict[tuple[Any, ...], dict[str, float]], used: dict[str, datetime], batch: Batch) -> None:
    for tally in batch.get("tallies", ()):
        label = (tally["minute"], *(str(tally[name])[: TEXT_MAX[name]] for name in LABEL))
        sums = tallies.setdefault(label, dict.fromkeys((*SUMS, "latency_ms_max"), 0))
        for name in SUMS:
            sums[name] += _exact(tally[name])
        sums["latency_ms_max"] = max(sums["latency_ms_max"], tally["latency_ms_max"])
        if tally["key"]:
            used[tally["key"]] = _instant(batch["at"])


def _exact(amount: float) -> float:
    """Round to a multiple of 1/1024: such numbers have the same sum in any order and grouping."""
    return round(amount * 1024) / 1024


def _write(tallies: dict[tuple[Any, ...], dict[str, float]]) -> None:
    """Add tallies to their rows, in two statements, as other writers wait meanwhile.

    The lock on the position is held, so the rows cannot change between the two.
    """
    if not tallies:
        return
    minutes = {minute: _instant(minute) for minute, *_ in tallies}
    stored = UsageMinute.objects.filter(minute__in=minutes.values()).values_list(
        "minute", *LABEL, *SUMS, "latency_ms_max"
    )
    before = {row[: len(LABEL) + 1]: row[len(LABEL) + 1 :] for row in stored.iterator()}
    rows = []
    for (minute, *label), sums in tallies.items():
        *sums_before, longest = before.get((minutes[minute], *label), (*(0,) * len(SUMS), 0))
        for name, value in zip(SUMS, sums_before, strict=True):
            sums[name] += value
        sums["latency_ms_max"] = max(sums["latency_ms_max"], longest)
        rows.append(UsageMinute(minute=minutes[minute], **dict(zip(LABEL, label, strict=True)), **sums))
    UsageMinute.objects.bulk_create(
        rows, update_conflicts=True, unique_fields=["minute", *LABEL], update_fields=[*SUMS, "latency_ms_max"]
    )


def _open(batch: Batch) -> None:
    ConnectionRecord.objects.bulk_create(
        [
            ConnectionRecord(
                id=row["id"],
                process=batch["process"],
                opened_at=_instant(row["opened_at"]),
                **_opened(row),
            )
            for row in batch.get("opened", ())
        ],
        ignore_conflicts=True,
    )


def _opened(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(row[name])[: OPENED_MAX[name]] for name in OPENED}


def _flow(batch: Batch) -> None:
    """Update the rows of open connections; one that has closed meanwhile has its final totals already."""
    for row in batch.get("flowing", ()):
        changed = {name: row[name] for name in FLOWED} | {"subscriptions": row.get("subscriptions", [])}
        ConnectionRecord.objects.still_open().filter(id=row["id"]).update(**changed)


def _close(batch: Batch) -> None:
    """Write how connections ended; a short one is opened and closed by the same batch."""
    ConnectionRecord.objects.bulk_create(
        [
            ConnectionRecord(
                id=row["id"],
                process=batch["process"],
                opened_at=_instant(row["opened_at"]),
                closed_at=_instant(row["closed_at"]),
                **_opened(row),
                **{name: row[name] for name in CLOSED},
            )
            for row in batch.get("closed", ())
        ],
        update_conflicts=True,
        unique_fields=["id"],
        update_fields=["closed_at", *CLOSED],
    )


def _close_missed(batch: Batch) -> None:
    """Close the connections of a process that was silent for longer than ``LOST_AFTER`` before this batch."""
    at = _instant(batch["at"])
    for process in GatewayProcess.objects.filter(name=batch["process"], heard_at__lt=at - LOST_AFTER):
        _close_rows_of(process.name, process.heard_at)


def _note_process(batch: Batch) -> None:
    at = _instant(batch["at"])
    if batch.get("stopping"):
        _close_rows_of(batch["process"], at)
        GatewayProcess.objects.filter(name=batch["process"]).delete()
        return
    GatewayProcess.objects.update_or_create(
        name=batch["process"], defaults={"kind": batch.get("kind", ""), "heard_at": at}
    )


def _close_rows_of(process: str, at: datetime) -> int:
    open_rows = ConnectionRecord.objects.still_open().filter(process=process)
    return open_rows.update(closed_at=at, closed_by="gateway", close_code=1006, error_class="internal")


def _instant(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, tz=UTC)
