"""A year of usage within its bounds: what pages and reports sum stays true, and the rows stay few."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings as project
from django.db.models import Count, Sum

from analytics import kept_words, reports
from analytics.models import ConnectionRecord, LimitMinute, UsageMinute
from analytics.retention import keep_connections, keep_limits, keep_usage

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
MIDNIGHT = NOW.replace(hour=0, minute=0)
CONSUMERS = [f"consumer-{number}" for number in range(3)]


@pytest.fixture
def bounds(settings):
    def change(**values):
        settings.RETENTION = replace(project.RETENTION, **values)

    return change


def swept(keep, now=NOW):
    return sum(keep(now))


def usage_row(at, consumer, span_s=60):
    return UsageMinute(
        minute=at, span_s=span_s, protocol="http", consumer=consumer, tier="gold", target="quotes", outcome="ok",
        calls=3, bytes_out=1000, latency_ms_sum=1.5, latency_ms_max=1.0,
    )  # fmt: skip


def usage_of(days):
    """Write a row an hour of each consumer for so many days, and the last three days by the minute."""
    rows = [
        usage_row(MIDNIGHT - timedelta(days=day) + timedelta(hours=hour, minutes=7), consumer)
        for day in range(3, days + 3)
        for hour in range(24)
        for consumer in CONSUMERS
    ]
    begin = MIDNIGHT - timedelta(days=2)
    minutes = int((NOW - begin).total_seconds() // 60)
    rows += [usage_row(begin + timedelta(minutes=number), one) for number in range(minutes) for one in CONSUMERS]
    UsageMinute.objects.bulk_create(rows, batch_size=2000)


def spans():
    return dict(UsageMinute.objects.order_by().values_list("span_s").annotate(count=Count("id")))


def test_a_year_of_usage_becomes_coarser_and_every_figure_stays(bounds, django_assert_max_num_queries):
    usage_of(400)
    kept_from = NOW - timedelta(days=400)
    all_calls = UsageMinute.objects.filter(minute__gte=kept_from.replace(hour=0, minute=0)).aggregate(n=Sum("calls"))
    month = reports.usage(UsageMinute.objects.all(), "month", NOW)
    swept(keep_usage)
    assert spans() == {
        60: (48 * 60 + 30) * len(CONSUMERS),  # two days and what has begun of the third
        3600: 33 * 24 * len(CONSUMERS) + 12 * len(CONSUMERS),
        86_400: 365 * len(CONSUMERS),
    }
    assert UsageMinute.objects.aggregate(n=Sum("calls")) == all_calls
    again = reports.usage(UsageMinute.objects.all(), "month", NOW)
    assert again["total"]["all_calls"] == month["total"]["all_calls"]
    assert again["slots"][1:] == month["slots"][1:]
    with django_assert_max_num_queries(5):
        year = reports.usage(UsageMinute.objects.all(), "year", NOW)
    assert year["slot_s"] == 86_400
    assert len(year["slots"]) == 365
    assert swept(keep_usage) == 0


def test_too_many_rows_become_coarser_before_their_time_and_then_the_oldest_go(bounds):
    bounds(usage_rows=700)
    usage_of(60)
    swept(keep_usage)
    assert UsageMinute.objects.count() == 700
    assert UsageMinute.objects.filter(span_s=60, minute__gt=NOW - timedelta(hours=1)).count() == 59 * len(CONSUMERS)
    assert UsageMinute.objects.filter(span_s=60).count() <= 180 * len(CONSUMERS)


def test_limits_become_coarser_and_go_after_their_days(bounds):
    LimitMinute.objects.bulk_create(
        [
            LimitMinute(minute=NOW - timedelta(minutes=10 * number), consumer="acme", name="requests", scope="consumer",
                        mode="enforce", reason="rate-limited", refused=1)
            for number in range(50 * 24 * 6)
        ],
        batch_size=2000,
    )  # fmt: skip
    swept(keep_limits)
    assert LimitMinute.objects.order_by("minute").first().minute == MIDNIGHT - timedelta(days=35)
    assert LimitMinute.objects.count() <= 49 * 6 + 34 * 24
    assert LimitMinute.objects.aggregate(n=Sum("refused"))["n"] == (35 * 24 + 12) * 6 + 4


def test_closed_connections_go_by_age_and_number_and_open_ones_never(bounds):
    bounds(connections_days=30, connections_rows=500)
    made = {"process": "web-1", "consumer": "acme", "key": "k", "tier": "gold", "protocol": "sse", "ip": "192.0.2.1"}
    ConnectionRecord.objects.bulk_create(
        [
            ConnectionRecord(id=f"{number:032x}", opened_at=NOW - timedelta(days=400), **made,
                             closed_at=None if number % 10 == 0 else NOW - timedelta(hours=number))
            for number in range(8000)
        ],
        batch_size=2000,
    )  # fmt: skip
    swept(keep_connections)
    assert ConnectionRecord.objects.still_open().count() == 800
    closed = ConnectionRecord.objects.exclude(closed_at=None)
    assert closed.count() == 500
    assert closed.order_by("closed_at").first().closed_at >= NOW - timedelta(hours=556)


def test_without_bounds_nothing_goes(bounds):
    bounds(usage_minutes_days=0, usage_hours_days=0, usage_days=0, usage_rows=0)
    UsageMinute.objects.bulk_create([usage_row(NOW - timedelta(days=5000), "acme")])
    assert swept(keep_usage) == 0
    assert kept_words.of_usage() == "kept without a bound"


def test_the_words_name_the_bounds(bounds):
    assert kept_words.of_usage() == (
        "kept for 400 days, at most 2,000,000 rows, by the minute for 2 days, by the hour for 35 days"
    )
    bounds(connections_days=1, connections_rows=0)
    assert kept_words.of_connections() == "kept for 1 day"
