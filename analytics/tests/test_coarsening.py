"""Old roll-ups become coarser without a change of any sum, whatever was late and in whatever order it is done."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics import services
from analytics.coarsening import DAY_S, HOUR_S, LIMITS, MINUTE_S, USAGE, coarsen
from analytics.models import LimitMinute, ProjectorPosition, UsageMinute
from analytics.tests.test_services import MADE_AT, batch, project, tally

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 1, 30, 12, tzinfo=UTC)
LABEL = {"protocol": "http", "consumer": "acme", "tier": "gold", "target": "quotes", "outcome": "ok"}


def minute(at, span_s=60, **fields):
    return UsageMinute(minute=at, span_s=span_s, **{**LABEL, "calls": 1, **fields})


def rows():
    return list(UsageMinute.objects.order_by("minute", "consumer").values_list("minute", "span_s", "consumer", "calls"))


def coarse(before):
    for fine_s, coarse_s in ((MINUTE_S, HOUR_S), (HOUR_S, DAY_S)):
        for _ in coarsen(USAGE, fine_s, coarse_s, before):
            pass


def test_minutes_become_the_row_of_their_hour():
    at = [NOON + timedelta(minutes=minutes) for minutes in (0, 1, 59, 60)]
    UsageMinute.objects.bulk_create([minute(one, calls=2, latency_ms_max=number) for number, one in enumerate(at)])
    UsageMinute.objects.bulk_create([minute(at[1], consumer="bolt")])
    assert list(coarsen(USAGE, MINUTE_S, HOUR_S, NOON + timedelta(hours=1, minutes=30))) == [4]
    assert rows() == [(NOON, 3600, "acme", 6), (NOON, 3600, "bolt", 1), (at[3], 60, "acme", 2)]
    assert UsageMinute.objects.get(minute=NOON, consumer="acme").latency_ms_max == 2


def test_an_hour_that_has_not_ended_stays():
    UsageMinute.objects.bulk_create([minute(NOON + timedelta(minutes=number)) for number in range(30)])
    assert list(coarsen(USAGE, MINUTE_S, HOUR_S, NOON + timedelta(minutes=59))) == []


def test_a_late_minute_is_added_to_the_row_of_its_hour_and_of_its_day():
    UsageMinute.objects.bulk_create([minute(NOON), minute(NOON + timedelta(minutes=5))])
    coarse(NOON + timedelta(hours=1))
    for late in (NOON, NOON + timedelta(minutes=7)):
        project([(services.position(MADE_AT) + 1, batch(tallies=[tally(minute=late.timestamp(), calls=10)]))])
    coarse(NOON + timedelta(hours=1))
    assert rows() == [(NOON, 3600, "acme", 22)]
    coarse(NOON + timedelta(days=1))
    midnight = NOON.replace(hour=0)
    project([(services.position(MADE_AT) + 1, batch(tallies=[tally(minute=midnight.timestamp(), calls=100)]))])
    assert rows() == [(midnight, 86_400, "acme", 122)]


def test_of_limits_the_highest_level_stays_and_what_is_of_one_minute_goes():
    label = {"consumer": "acme", "name": "requests", "scope": "consumer", "mode": "enforce"}
    for number, level in enumerate((None, 0.5, 0.9, None)):
        at = NOON + timedelta(minutes=number)
        LimitMinute.objects.create(minute=at, refused=2, level=level, left=1, resets_at=at, **label)
    LimitMinute.objects.create(minute=NOON, **label | {"name": "other"})
    for _ in coarsen(LIMITS, MINUTE_S, HOUR_S, NOON + timedelta(hours=2)):
        pass
    other, one = LimitMinute.objects.order_by("name")
    assert (one.refused, one.level, one.left, one.resets_at, one.span_s) == (8, 0.9, None, None, 3600)
    assert (other.level, other.span_s) == (None, 3600)


AT = st.integers(0, 3 * DAY_S // 60).map(lambda minutes: NOON + timedelta(minutes=minutes))
AMOUNTS = st.floats(0, 1e6).map(lambda amount: round(amount * 1024) / 1024)
ROWS = st.lists(
    st.tuples(AT, st.sampled_from(["acme", "bolt"]), st.integers(0, 10**9), AMOUNTS), max_size=40,
    unique_by=lambda row: row[:2],
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(ROWS, st.integers(1, 7), st.integers(0, 100))
def test_no_sum_changes_in_whatever_batches(drawn, size, hours):
    UsageMinute.objects.all().delete()
    UsageMinute.objects.bulk_create(
        [minute(at, consumer=consumer, calls=calls, latency_ms_sum=ms) for at, consumer, calls, ms in drawn]
    )
    before = NOON + timedelta(hours=hours)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analytics.coarsening.BATCH", size)
        coarse(before)
    expected = {}
    for at, consumer, calls, ms in drawn:
        day = before.replace(hour=0)
        begin = at.replace(hour=0, minute=0) if at < day else at.replace(minute=0) if at < before else at
        sums = expected.setdefault((begin, consumer), [0, 0.0])
        sums[0] += calls
        sums[1] += ms
    found = UsageMinute.objects.values_list("minute", "consumer", "calls", "latency_ms_sum")
    assert {(at, consumer): [calls, ms] for at, consumer, calls, ms in found} == expected


def test_a_batch_is_small_and_holds_the_projectors_lock(django_assert_max_num_queries, monkeypatch):
    monkeypatch.setattr("analytics.coarsening.BATCH", 10)
    UsageMinute.objects.bulk_create([minute(NOON + timedelta(minutes=number)) for number in range(60)])
    steps = coarsen(USAGE, MINUTE_S, HOUR_S, NOON + timedelta(hours=2))
    with django_assert_max_num_queries(12):
        assert next(steps) == 10
    assert ProjectorPosition.objects.count() == 1
    assert [next(steps) for _ in range(5)] == [10] * 5
    assert next(steps, None) is None
    assert UsageMinute.objects.get().calls == 60
