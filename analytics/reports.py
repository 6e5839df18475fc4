"""Reports of the dashboards on past usage, from the roll-ups and the ledger."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count, F, QuerySet, Sum
from django.db.models.functions import TruncDay, TruncHour

from analytics import words
from analytics.models import ConnectionRecord, UsageMinute

HOUR = timedelta(hours=1)
TOP = 30
CLOSED_SHOWN = 12
PERIODS = {
    "hour": ("Last hour", HOUR),
    "day": ("Last 24 hours", timedelta(days=1)),
    "week": ("Last 7 days", timedelta(days=7)),
    "month": ("Last 30 days", timedelta(days=30)),
    "quarter": ("Last 90 days", timedelta(days=90)),
    "year": ("Last 12 months", timedelta(days=365)),
}
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
HOURS_SHOWN = timedelta(days=35)
"""Longer periods are shown by the day."""
COUNTED = ("calls", "messages_in", "messages_out", "bytes_in", "bytes_out", "throttled")
ROWS_MAX = 50
FINE = ("ok", "abandoned")

Rows = QuerySet[UsageMinute]


def last_hour(now: datetime) -> dict[str, Any]:
    """Return the usage of the last sixty minutes, for the overview."""
    rows = UsageMinute.objects.filter(minute__gt=now - HOUR)
    weight = Sum("calls") + Sum("messages_in") + Sum("messages_out")
    return {
        "minutes": [
            [row["minute"].timestamp(), row["protocol"], row["all_calls"], row["messages"], row["data"]]
            for row in rows.order_by("minute")
            .values("minute", "protocol")
            .annotate(
                all_calls=Sum("calls"),
                messages=Sum("messages_in") + Sum("messages_out"),
                data=Sum("bytes_in") + Sum("bytes_out"),
            )
        ],
        "refused": dict(
            rows.exclude(outcome__in=FINE)
            .order_by()
            .values_list("outcome")
            .annotate(count=Sum("calls"))
            .order_by("-count")[:TOP]
        ),
        "consumers": dict(rows.order_by().values_list("consumer").annotate(weight=weight).order_by("-weight")[:TOP]),
        "targets": dict(rows.order_by().values_list("target").annotate(weight=weight).order_by("-weight")[:TOP]),
        "open": open_connections(),
    }


def open_connections() -> dict[str, int]:
    """Count the open connections of each protocol."""
    return dict(ConnectionRecord.objects.still_open().order_by().values_list("protocol").annotate(count=Count("id")))


def just_closed() -> list[dict[str, Any]]:
    """Return the connections that closed last, in the format of usage batches."""
    rows = ConnectionRecord.objects.exclude(closed_at=None).order_by("-closed_at")[:CLOSED_SHOWN]
    return [
        {
            "id": row.pk,
            "protocol": row.protocol,
            "consumer": row.consumer,
            "route": row.route,
            "channel": row.channel,
            "close_code": row.close_code,
            "error_class": row.error_class,
            "messages_in": row.messages_in,
            "messages_out": row.messages_out,
            "closed_at": row.closed_at.timestamp() if row.closed_at else None,
        }
        for row in rows
    ]


def usage(rows: Rows, period: str, now: datetime) -> dict[str, Any]:
    """Return the usage of a period: in total, over time, by consumer, by target and by outcome."""
    rows = rows.filter(minute__gt=now - PERIODS[period][1]).order_by()
    slot_s = slot_of(period)
    over_time = rows.annotate(slot={MINUTE_S: F, HOUR_S: TruncHour, DAY_S: TruncDay}[slot_s]("minute"))
    return {
        "slot_s": slot_s,
        "total": rows.aggregate(
            **{f"all_{name}": Sum(name, default=0) for name in COUNTED},
            latency=Sum("latency_ms_sum", default=0),
        ),
        "slots": [
            [row["slot"].timestamp(), row["protocol"], row["all_calls"], row["messages"]]
            for row in over_time.values("slot", "protocol")
            .annotate(all_calls=Sum("calls"), messages=Sum("messages_in") + Sum("messages_out"))
            .order_by("slot")
        ],
        "consumers": _summed(rows, "consumer", "tier"),
        "targets": _summed(rows, "target", "protocol"),
        "outcomes": [
            {
                "words": words.outcome_text(row["outcome"]),
                "slug": words.OUTCOMES[row["outcome"]][1] if row["outcome"] in words.OUTCOMES else "",
                **row,
            }
            for row in rows.exclude(outcome__in=FINE)
            .values("outcome", "protocol")
            .annotate(count=Sum("calls"))
            .order_by("-count")[:ROWS_MAX]
        ],
    }


def slot_of(period: str) -> int:
    """Return the seconds of a slot in which a period is shown, by how fine its rows are kept."""
    if period == "hour":
        return MINUTE_S
    hours_days = settings.RETENTION.usage_hours_days
    hours = min(HOURS_SHOWN, timedelta(days=hours_days)) if hours_days else HOURS_SHOWN
    return HOUR_S if PERIODS[period][1] <= hours else DAY_S


def shortfall(period: str, days: int) -> str:
    """Return the notice that a period is longer than rows are kept, in days (0: always); empty if it is not."""
    if not days or PERIODS[period][1] <= timedelta(days=days):
        return ""
    return f"Kept for {days} {'day' if days == 1 else 'days'}: earlier figures are not available."


def _summed(rows: Rows, *labels: str) -> list[dict[str, Any]]:
    """Return sums by labels, the busiest first."""
    summed = list(
        rows.values(*labels)
        .annotate(**{f"all_{name}": Sum(name) for name in COUNTED})
        .annotate(weight=F("all_calls") + F("all_messages_in") + F("all_messages_out"))
        .order_by("-weight")[:ROWS_MAX]
    )
    return [dict(row) for row in summed]
