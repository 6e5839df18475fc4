"""Makes old roll-ups coarser: the rows of minutes become one row of their hour, and those of hours one of their day.

All amounts are multiples of 1/1024, so their sums are exact in any order: a rebuild that is made coarser again comes to
the same rows. Each batch is one transaction, under the lock of the projector: what it projects meanwhile waits, and a
late minute is added to the row of its hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import connection, models, transaction

from analytics import limit_rows, services
from analytics.models import LimitMinute, UsageMinute
from operators.batches import BATCH

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400


@dataclass(frozen=True, slots=True)
class Rollup:
    """A table of roll-ups: what its rows are told apart by, and how their other columns are merged."""

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
    """Merge rows of the oldest period that has any, at most a batch."""
    fine = rollup.model._default_manager.filter(span_s=fine_s).order_by("minute")
    oldest = fine.filter(minute__lt=before).values_list("minute", flat=True).first()
    if oldest is None:
        return 0
    begin = begin_of(oldest, coarse_s)
    end = datetime.fromtimestamp(begin.timestamp() + coarse_s, tz=UTC)
    # The first row of a label has the instant of the coarse row already: it becomes that row.
    merged = fine.filter(minute=begin).update(span_s=coarse_s, **dict.fromkeys(rollup.of_minutes))
    keys = list(fine.filter(minute__gt=begin, minute__lt=end).values_list("pk", flat=True)[:BATCH])
    if keys:
        _add(rollup, keys, begin, coarse_s)
        rollup.model._default_manager.filter(pk__in=keys).delete()
    return merged + len(keys)


def _add(rollup: Rollup, keys: list[int], begin: datetime, coarse_s: int) -> None:
    """Add rows to those of their labels at an instant, in one statement: the rows of a busy hour are many."""
    name = connection.ops.quote_name
    table = name(rollup.model._meta.db_table)
    labels, sums, highest = (
        [name(column) for column in columns] for columns in (rollup.labels, rollup.sums, rollup.highest)
    )
    columns = ", ".join([name("minute"), name("span_s"), *labels, *sums, *highest])
    values = ", ".join(["%s", "%s", *labels, *(f"SUM({one})" for one in sums), *(f"MAX({one})" for one in highest)])
    changes = [f"{one} = kept.{one} + excluded.{one}" for one in sums]
    changes += [
        f"{one} = CASE WHEN kept.{one} IS NULL OR excluded.{one} > kept.{one} THEN excluded.{one} ELSE kept.{one} END"
        for one in highest
    ]
    statement = (
        f"INSERT INTO {table} AS kept ({columns}) SELECT {values} FROM {table}"  # noqa: S608 - names of columns
        f" WHERE id IN ({', '.join(['%s'] * len(keys))}) GROUP BY {', '.join(labels)}"
        f" ON CONFLICT ({name('minute')}, {', '.join(labels)}) DO UPDATE SET {', '.join(changes)}"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [connection.ops.adapt_datetimefield_value(begin), coarse_s, *keys])
