"""Keeps to the bounds of usage, of what limits refused, and of closed connections."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.conf import settings

from analytics.coarsening import DAY_S, HOUR_S, LIMITS, MINUTE_S, USAGE, Rollup, begin_of, coarsen
from analytics.models import ConnectionRecord
from operators.batches import delete_excess, delete_in_batches

MINUTES_KEPT = timedelta(hours=2)
HOURS_KEPT = timedelta(days=2)
"""How long rows stay fine where there are too many of them: the pages of the last hour and day read those."""


def keep_usage(now: datetime) -> Iterator[int]:
    """Make old usage coarser, delete what is too old or too much, and yield the number of each batch."""
    bounds = settings.RETENTION
    if bounds.usage_hours_days:
        yield from coarsen(USAGE, MINUTE_S, HOUR_S, now - timedelta(days=bounds.usage_hours_days))
        yield from coarsen(USAGE, HOUR_S, DAY_S, now - timedelta(days=bounds.usage_hours_days))
    if bounds.usage_minutes_days:
        yield from coarsen(USAGE, MINUTE_S, HOUR_S, now - timedelta(days=bounds.usage_minutes_days))
    yield from _delete_old(USAGE, now, days=bounds.usage_days)
    yield from _shrink(USAGE, now, rows=bounds.usage_rows)


def keep_limits(now: datetime) -> Iterator[int]:
    """Make old rows of limits coarser, delete what is too old or too much, and yield the number of each batch."""
    bounds = settings.RETENTION
    if bounds.usage_minutes_days:
        yield from coarsen(LIMITS, MINUTE_S, HOUR_S, now - timedelta(days=bounds.usage_minutes_days))
    yield from _delete_old(LIMITS, now, days=bounds.limits_days)
    yield from _shrink(LIMITS, now, rows=bounds.limits_rows)


def keep_connections(now: datetime) -> Iterator[int]:
    """Delete the rows of connections that closed long ago, or are too many, and yield the number of each batch."""
    bounds = settings.RETENTION
    closed = ConnectionRecord.objects.filter(closed_at__isnull=False).order_by("closed_at")
    if bounds.connections_days:
        yield from delete_in_batches(closed.filter(closed_at__lt=now - timedelta(days=bounds.connections_days)))
    yield from delete_excess(closed, bounds.connections_rows)


def _delete_old(rollup: Rollup, now: datetime, *, days: int) -> Iterator[int]:
    if days:
        # By whole days: a row of a day is kept until all of it is too old.
        old = rollup.model._default_manager.filter(minute__lt=begin_of(now - timedelta(days=days), DAY_S))
        yield from delete_in_batches(old.order_by("minute"))


def _shrink(rollup: Rollup, now: datetime, *, rows: int) -> Iterator[int]:
    """Where there are too many rows, make them coarser before their time; what is still too much is deleted."""
    every = rollup.model._default_manager.order_by("minute")
    if rows and every.count() > rows:
        yield from coarsen(rollup, MINUTE_S, HOUR_S, now - MINUTES_KEPT)
        yield from coarsen(rollup, HOUR_S, DAY_S, now - HOURS_KEPT)
        yield from delete_excess(every, rows)
