"""Makes old roll-ups coarser: the rows of minutes become one row of their hour, and those of hours one of their day.

All amounts are multiples of 1/1024, so their sums are exact in any order: a rebuild that is made coarser again comes to
the same rows. Each batch is one transaction, under the lock of the projector: what it projects meanwhile waits, and a
late minute is added to the row of its hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import models, transaction

from analytics import limit_rows, services
from analytics.models import LimitMinute, UsageMinute
from operators.batches import BATCH

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400


@dataclass(frozen=True, slots=True)
class Rollup:
    """A table of roll-ups: what distinguishes its rows, and how their other columns are merged."""

    model: type[models.Model]
    labels: tuple[str, ...]
    sums: tuple[str, ...]
    highest: tuple[str, ...]
    of_minutes: tuple[str, ...] = ()
    """Columns that say something of one minute only, and are emptied."""


USAGE = Rollup(UsageMinute, services.LABEL, services.SUMS, ("latency_ms_max",))
LIMITS = Rollup(LimitMinute, limit_rows.LABEL, limit_rows.SUMS, ("level",), ("left", "resets_at"))


def coarsen(rollup: Rollup, fine_s: int, coarse_s: int, before: datetime) -> Iterator[int]:
    """Merge rows of ``fine_s`` seconds into rows of ``coarse_s``, in every whole period that ended before an instant.

    Yields how many rows each batch has merged.
    """
    before = begin_of(before, coarse_s)
    while True:
        with transaction.atomic():
            services.lock_position()
            merged = _merge_some(rollup, fine_s, coarse_s, before)
        if not merged:
            return
        yield merged


def begin_of(instant: datetime, span_s: int) -> datetime:
    """Return the begin of the minute, hour or day in UTC that contains an instant."""
    unix_s = int(instant.timestamp())
    return datetime.fromtimestamp(unix_s - unix_s % span_s, tz=UTC)


def _merge_some(rollup: Rollup, fine_s: int, coarse_s: int, before: datetime) -> int:
    """Merge the oldest rows, at most a batch. Whatever lies between two batches of a period is added to its row."""
    manager = rollup.model._default_manager
    columns = ("pk", "minute", *rollup.labels, *rollup.sums, *rollup.highest)
    fine = list(manager.filter(span_s=fine_s, minute__lt=before).order_by("minute", "pk").values(*columns)[:BATCH])
    if not fine:
        return 0
    begins = {row["minute"]: begin_of(row["minute"], coarse_s) for row in fine}
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in fine:
        _merge(rollup, merged, row, begin=begins[row["minute"]], span_s=coarse_s)
    keys = [row["pk"] for row in fine]
    consumers = {row["consumer"] for row in fine}
    coarse = manager.filter(minute__in=set(begins.values()), consumer__in=consumers, span_s__gt=fine_s)
    for row in coarse.values(*columns, "span_s"):
        if (row["minute"], *(row[label] for label in rollup.labels)) in merged:
            _merge(rollup, merged, row, begin=row["minute"], span_s=row["span_s"])
    rows = [rollup.model(**fields) for fields in merged.values()]
    changed = ["span_s", *rollup.sums, *rollup.highest, *rollup.of_minutes]
    unique = ["minute", *rollup.labels]
    manager.bulk_create(rows, update_conflicts=True, unique_fields=unique, update_fields=changed)
    # A row that has the instant of its coarse row has become that row.
    manager.filter(pk__in=keys).exclude(span_s__gt=fine_s).delete()
    return len(fine)


def _merge(
    rollup: Rollup, merged: dict[tuple[Any, ...], dict[str, Any]], row: dict[str, Any], *, begin: datetime, span_s: int
) -> None:
    """Add a row to the coarse one of its labels."""
    labels = {label: row[label] for label in rollup.labels}
    columns = (*rollup.sums, *rollup.highest)
    fields = {"minute": begin, "span_s": span_s, **labels, **{name: row[name] for name in columns}}
    into = merged.setdefault((begin, *labels.values()), fields)
    if into is fields:
        return
    into["span_s"] = max(into["span_s"], span_s)
    for name in rollup.sums:
        into[name] += row[name]
    for name in rollup.highest:
        into[name] = max((level for level in (into[name], row[name]) if level is not None), default=None)
