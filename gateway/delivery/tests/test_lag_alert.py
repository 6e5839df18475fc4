import dataclasses

import orjson
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery import lag_alert
from gateway.delivery.lag_alert import PAUSES_S, Alert
from gateway.snapshot.subscriptions import Subscription

SUBSCRIPTION = Subscription("sub_1", "acme", "k", "pull", "trades", alert_url="https://a.example", alert_lag_events=10)


def lag(events=0, seconds=0.0):
    return {"events": events, "seconds": seconds}


def test_either_threshold_is_enough_and_what_is_unknown_is_none():
    by_age = dataclasses.replace(SUBSCRIPTION, alert_lag_events=None, alert_lag_s=60)
    assert [lag_alert.is_above(SUBSCRIPTION, lag(events=n)) for n in (0, 9, 10, 11)] == [False, False, True, True]
    assert [lag_alert.is_above(by_age, lag(seconds=n)) for n in (0, 59.9, 60)] == [False, False, True]
    assert not lag_alert.is_above(SUBSCRIPTION, lag(seconds=1e9))
    assert not lag_alert.is_above(SUBSCRIPTION, {"events": None, "seconds": None})


def test_nothing_is_due_before_the_threshold_was_passed():
    assert not Alert().measured(is_above=False, now=5).is_due(5)


def test_it_is_told_once_a_crossing():
    alert = Alert().measured(is_above=True, now=5)
    assert alert.is_due(5)
    alert = alert.delivered()
    assert not alert.measured(is_above=True, now=1e9).is_due(1e9)
    assert alert.measured(is_above=False, now=7).is_due(7)


@given(st.lists(st.floats(0, 1e6), min_size=20, max_size=20))
def test_what_nobody_takes_is_tried_with_growing_pauses_and_given_up(waits):
    alert, now, tries = Alert().measured(is_above=True, now=0), 0.0, 0
    for wait in waits:
        now += wait
        if alert.is_due(now):
            alert, tries = alert.failed(now), tries + 1
            assert not alert.is_due(now) or PAUSES_S[min(tries, len(PAUSES_S) - 1)] == 0
    assert tries <= len(PAUSES_S)


def test_a_message_has_the_same_id_in_each_try():
    alert = Alert().measured(is_above=True, now=1_795_000_000.5)
    health = {"state": "active", "state_reason": None, "lag": lag(12, 3)}
    first, again = (lag_alert.message(SUBSCRIPTION, one, health) for one in (alert, alert.failed(1_795_000_001)))
    assert first == again
    body = orjson.loads(first[1])
    assert (first[0], body["type"], body["data"]["lag"]["events"]) == (
        "sub_1_lagging_1795000000500", "subscription.lagging", 12,
    )  # fmt: skip
