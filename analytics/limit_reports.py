"""Reports of the limits page: consumers near a limit, refusals, and refusals in shadow mode."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db.models import Max, QuerySet, Sum

from analytics.models import LimitMinute

NEAR_WITHIN = timedelta(minutes=2)
ROWS_MAX = 50
Rows = QuerySet[LimitMinute]


def limits(rows: Rows, since: datetime, now: datetime) -> dict[str, Any]:
    """Return what limits have refused since an instant, and which consumers are near a limit now."""
    rows = rows.order_by()
    period = rows.filter(minute__gte=since - timedelta(minutes=1))
    return {
        "near": _near(rows.filter(minute__gte=now - NEAR_WITHIN, level__isnull=False), now),
        "refused": _summed(period.filter(refused__gt=0), "refused", "consumer", "name", "scope"),
        "shadowed": _summed(period.filter(shadowed__gt=0), "shadowed", "consumer", "name", "scope", "route", "reason"),
        "unshared": _summed(period.filter(unshared__gt=0), "unshared", "consumer", "name", "scope"),
    }


def _near(rows: Rows, now: datetime) -> list[dict[str, Any]]:
    """Return the latest level of each limit that is half used up, the fullest first; without limits that have reset."""
    newest: dict[tuple[str, str, str, str], LimitMinute] = {}
    for row in rows.order_by("minute"):
        newest[row.consumer, row.name, row.scope, row.mode] = row
    still = [row for row in newest.values() if row.resets_at is None or row.resets_at > now]
    near = sorted(still, key=lambda row: (-(row.level or 0), row.consumer, row.name))
    return [
        {
            "consumer": row.consumer,
            "name": row.name,
            "scope": row.scope,
            "mode": row.mode,
            "percent": min(100, round(100 * (row.level or 0))),
            "left": row.left,
            "resets_in_s": max(0, round((row.resets_at - now).total_seconds())) if row.resets_at else None,
        }
        for row in near[:ROWS_MAX]
    ]


def _summed(rows: Rows, what: str, *labels: str) -> list[dict[str, Any]]:
    summed = rows.values(*labels).annotate(count=Sum(what), last=Max("minute")).order_by("-count")[:ROWS_MAX]
    return [dict(row) for row in summed]
