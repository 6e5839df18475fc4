"""Per-minute rows of limits, from the usage batches."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from analytics.models import LimitMinute

LABEL = ("consumer", "name", "scope", "mode", "route", "reason")
SUMS = ("refused", "shadowed", "unshared")
LEVEL = ("level", "left", "resets_at")
TEXT_MAX = {"consumer": 100, "name": 100, "scope": 12, "mode": 10, "route": 255, "reason": 40}

LimitTallies = dict[tuple[Any, ...], dict[str, Any]]


def gather_limits(limits: LimitTallies, batch: Mapping[str, Any]) -> None:
    """Add a batch's limit records to the tallies: counts are summed, of levels the highest is kept."""
    for record in batch.get("limits", ()):
        label = (record["minute"], *(str(record[name])[: TEXT_MAX[name]] for name in LABEL))
        sums = limits.setdefault(label, {**dict.fromkeys(SUMS, 0), **dict.fromkeys(LEVEL)})
        _add(sums, {name: record[name] for name in SUMS} | {name: record.get(name) for name in LEVEL})


def write_limits(limits: LimitTallies) -> None:
    """Add tallies to their rows. The caller holds the lock on the position, so the rows cannot change meanwhile."""
    if not limits:
        return
    minutes = {minute: datetime.fromtimestamp(minute, tz=UTC) for minute, *_ in limits}
    stored = LimitMinute.objects.filter(minute__in=minutes.values()).values("minute", *LABEL, *SUMS, *LEVEL)
    before = {(row["minute"], *(row[name] for name in LABEL)): row for row in stored.iterator()}
    rows = []
    for (minute, *label), sums in limits.items():
        had = before.get((minutes[minute], *label))
        if had is not None:
            at = had["resets_at"]
            _add(sums, {**had, "resets_at": at.timestamp() if at is not None else None})
        resets_at = sums["resets_at"]
        sums["resets_at"] = datetime.fromtimestamp(resets_at, tz=UTC) if resets_at is not None else None
        rows.append(LimitMinute(minute=minutes[minute], **dict(zip(LABEL, label, strict=True)), **sums))
    LimitMinute.objects.bulk_create(
        rows, update_conflicts=True, unique_fields=["minute", *LABEL], update_fields=[*SUMS, *LEVEL]
    )


def _add(sums: dict[str, Any], record: Mapping[str, Any]) -> None:
    for name in SUMS:
        # Multiples of 1/1024 sum to the same value in any order.
        sums[name] += round(record[name] * 1024) / 1024
    if record["level"] is None:
        return
    resets = [at for at in (sums["resets_at"], record["resets_at"]) if at is not None]
    if sums["level"] is None or record["level"] > sums["level"]:
        sums |= {name: record[name] for name in LEVEL}
    # The latest reset: until then the limit counts as near.
    sums["resets_at"] = max(resets, default=None)
