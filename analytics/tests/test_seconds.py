"""Rates by second, from batches that arrive when they arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.seconds import COMPLETE_AFTER_S, INTERVAL_MAX_S, Seconds

START = 1_000_000


def tally(**more):
    return {
        "protocol": "http", "calls": 0, "messages_in": 0, "messages_out": 0, "bytes_in": 0, "bytes_out": 0,
        "latency_ms_sum": 0.0,
    } | more  # fmt: skip


def batch(at, interval_s=1.0, **more):
    return {"at": at, "interval_s": interval_s, "tallies": [tally(**more)]}


def calls(reported):
    return {at: round(second.calls["http"], 6) for at, second in reported}


def test_a_batch_is_spread_over_the_seconds_that_it_covers():
    seconds = Seconds(START)
    seconds.add(batch(START + 1.75, calls=100), START + 1.8)
    assert calls(seconds.complete(START + 4)) == {START: 25, START + 1: 75}


def test_a_steady_flow_is_steady_whenever_its_batches_come():
    seconds = Seconds(START)
    reported = {}
    for number in range(1, 60):
        at = START + number * 1.013
        seconds.add(batch(at, 1.013, calls=1013), at)
        reported |= calls(seconds.complete(at))
    assert len(reported) > 50
    assert set(list(reported.values())[1:]) == {1000.0}


def test_seconds_without_news_are_told_too():
    seconds = Seconds(START)
    assert calls(seconds.complete(START + COMPLETE_AFTER_S + 2)) == {START: 0, START + 1: 0, START + 2: 0}
    assert calls(seconds.complete(START + COMPLETE_AFTER_S + 2)) == {}


def test_what_comes_after_its_second_was_told_is_not_lost():
    seconds = Seconds(START)
    list(seconds.complete(START + 5))
    seconds.add(batch(START + 2, calls=10), START + 5)
    assert sum(calls(seconds.complete(START + 8)).values()) == 10


def test_what_was_kept_while_the_way_up_was_broken_is_no_news():
    seconds = Seconds(START)
    list(seconds.complete(START + 60))
    seconds.add(batch(START + 2, calls=10), START + 60)
    assert sum(calls(seconds.complete(START + 70)).values()) == 0


def test_a_clock_that_is_ahead_is_not_believed():
    seconds = Seconds(START)
    seconds.add(batch(START + 900, calls=10), START + 1)
    assert sum(calls(seconds.complete(START + 5)).values()) == pytest.approx(10)


def test_latency_is_that_of_timed_calls_alone():
    seconds = Seconds(START)
    seconds.add(batch(START + 1, calls=4, latency_ms_sum=10.0), START + 1)
    seconds.add(batch(START + 1, protocol="mqtt", calls=96), START + 1)
    (_, first), *_ = seconds.complete(START + 5)
    assert first.figures(START)["latency_ms"] == 2.5


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 4), st.floats(0, INTERVAL_MAX_S), st.integers(0, 10_000))))
def test_nothing_that_is_added_is_lost_or_doubled(batches):
    seconds = Seconds(START)
    reported = 0.0
    for at, late_s, interval_s, count in sorted(batches, key=lambda drawn: drawn[0] + drawn[1]):
        now = START + at + late_s
        seconds.add(batch(START + at, interval_s, calls=count), now)
        reported += sum(second.calls["http"] for _, second in seconds.complete(now))
    reported += sum(second.calls["http"] for _, second in seconds.complete(START + 100))
    assert reported == pytest.approx(sum(count for *_, count in batches))
