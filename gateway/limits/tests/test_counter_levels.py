"""What a counter reports: how much may be spent, when all of it may be, and how long a cost has to wait."""

from __future__ import annotations

import pytest

from gateway.limits.counters import BELIEVED_S, MONTH, MONTH_WAIT_S, Counter, Terms, spend
from gateway.limits.tests.counting import Bucket, alone, lend
from gateway.snapshot.picture import Limit, Metric

LOOK = Terms(0, 0, 0)


def shared(amount: float, per: float | str = 1.0, burst: float = 0) -> Counter:
    return Counter(Limit(Metric.MESSAGES_IN, amount, per, burst), "key", "acme", is_shared=True)


@pytest.mark.parametrize("counter", [alone(10), shared(10), alone(10, MONTH), shared(10, MONTH)])
def test_everything_is_left_at_first(counter):
    assert counter.state(0.0) == (10, 0)


def test_a_bucket_reports_what_was_spent_until_it_refilled():
    counter = alone(10)
    counter.take(4, 0.0)
    assert counter.state(0.0) == pytest.approx((6, 0.4))
    assert counter.state(0.3) == pytest.approx((9, 0.1))
    assert counter.state(0.4) == (10, 0)
    assert counter.state(9.0) == (10, 0)


def test_a_bucket_in_debt_has_nothing_left_and_is_full_again_once_the_debt_refilled_too():
    counter = alone(10)
    counter.take(25, 0.0)
    remaining, reset_s = counter.state(0.5)
    assert remaining == 0
    assert reset_s == pytest.approx(2.0)
    assert counter.state(0.5 + reset_s) == pytest.approx((10, 0))


def test_what_was_used_beyond_its_charge_refills_before_it_is_spent_again():
    counter = alone(10)
    counter.owe(5, 0.0)
    assert counter.state(0.0) == pytest.approx((5, 0.5))
    assert counter.wait_s(10, 0.0) == pytest.approx(0.5, abs=1e-5)


def test_what_others_left_in_a_shared_bucket_is_reported_with_the_lease_and_what_refilled_since():
    counter = shared(100, 10.0)
    counter.granted(LOOK, 5, 20, 0, 10.0)
    assert counter.state(10.0) == pytest.approx((25, 7.5))
    assert counter.state(12.0) == pytest.approx((45, 5.5))
    assert counter.state(30.0) == (100, 0)


def test_no_more_is_reported_of_a_shared_bucket_than_this_process_may_spend():
    counter = shared(100, 10.0)
    counter.granted(LOOK, 60, 40, 0, 10.0)
    assert spend((counter,), 30, 10.0)
    counter.granted(LOOK, 0, 60, 0, 10.0)  # another process returned 20
    assert counter.state(10.0) == pytest.approx((70, 3))


def test_what_the_shared_bucket_has_left_grows_with_its_rate_up_to_its_size():
    counter = shared(100, 10.0)
    counter.granted(LOOK, 5, 20, 0, 10.0)
    assert [counter.left_now(now) for now in (10.0, 12.0, 18.0, 99.0)] == [20, 40, 100, 100]


def test_what_is_owed_before_the_store_was_asked_is_missing_from_what_it_has_left():
    counter = shared(100, 10.0)
    assert counter.owe(30, 0.0) == 30
    assert counter.left_now(0.0) == 70


def test_a_quota_reports_what_is_left_with_the_lease_and_when_the_month_ends():
    counter = shared(100, MONTH)
    counter.granted(LOOK, 5, 20, 1000, 10.0)
    assert counter.state(11.0) == (25, 999)
    assert counter.state(2000.0) == (25, 0)


def test_a_quota_in_debt_has_nothing_left():
    counter = shared(100, MONTH)
    counter.granted(LOOK, 5, 20, 1000, 10.0)
    assert counter.owe(40, 11.0) == 35
    assert counter.state(11.0) == (0, 999)


def test_no_more_than_the_whole_of_a_quota_is_reported():
    counter = shared(100, MONTH)
    counter.granted(LOOK, 50, 50, 1000, 10.0)
    counter.take(30, 11.0)
    counter.begin_month()
    counter.put_back(30)  # was charged last month
    assert counter.state(1010.0) == (100, 0)


def test_a_quota_of_one_connection_is_spent_to_its_end_and_no_further():
    counter = alone(5, MONTH)
    assert [spend((counter,), 1, float(now)) for now in range(6)] == [True] * 5 + [False]
    assert counter.state(6.0) == (0, 0)
    assert counter.wait_s(1, 6.0) == MONTH_WAIT_S


def test_a_quota_may_be_spent_as_fast_as_it_is_leased():
    counter = shared(100, MONTH)
    for now in (11.0, 12.0):
        counter.granted(LOOK, 100, 0, 1000, now)
        assert spend((counter,), 100, now)


@pytest.mark.parametrize(("lease", "wait_s"), [(0, 0.5), (2, 0.3)])
def test_a_cost_waits_until_the_shared_bucket_holds_what_the_lease_lacks(lease, wait_s):
    counter = shared(10)
    counter.granted(LOOK, lease, 0, 0, 10.0)
    assert counter.wait_s(5, 10.0) == pytest.approx(wait_s)


def test_a_cost_that_the_lease_covers_does_not_wait_for_the_store():
    counter = shared(1000)
    counter.granted(Terms(1, 1, 5), 1, 0, 0, 10.0)
    assert counter.wait_s(1, 10.0) == 0
    assert counter.wait_s(2, 10.0) > 0


@pytest.mark.parametrize("rate", [0.01, 1.0])
@pytest.mark.parametrize("short", [5e-7, 1.5e-6, 0.3])
def test_the_store_is_asked_only_once_it_would_grant_the_cost(rate, short):
    counter, bucket = shared(rate, 1.0, burst=10), Bucket(1 - short, 10.0)
    counter.granted(LOOK, 0, bucket.tokens, 0, bucket.at_s)
    asked_at = bucket.at_s + counter.wait_s(1, bucket.at_s)
    assert lend(bucket.refilled(rate, 10, asked_at), rate, Terms(1, 1, 1))[1] == 1


def test_what_refills_within_a_microsecond_is_not_waited_for():
    own = alone(10**6, 1.0, burst=3)
    assert spend((own,), 4, 0.0)
    assert not spend((own,), 1, 0.0)
    counter = shared(10**6)
    counter.granted(LOOK, 0, 0, 0, 10.0)
    assert counter.wait_s(1, 10.0) == 0
    assert counter.wait_s(3, 10.0) > 0


def test_a_dry_bucket_is_believed_to_be_dry_for_a_while_and_then_asked_again():
    counter = shared(1, 1000.0)
    counter.granted(LOOK, 0, 0, 0, 10.0)
    fresh, stale = 10 + BELIEVED_S / 2, 10 + BELIEVED_S
    assert counter.is_stale(fresh) is False
    assert counter.wait_s(1, fresh) == pytest.approx(1010 - fresh)
    assert counter.is_stale(stale) is True
    assert counter.wait_s(1, stale) == 0


def test_a_counter_without_a_store_knows_all_that_there_is_to_know():
    assert alone(10).is_stale(1000.0) is False


def test_a_quota_that_is_used_up_waits_for_the_end_of_the_month_and_a_whole_second_at_least():
    counter = shared(100, MONTH)
    counter.granted(LOOK, 0, 0, 1000, 10.0)
    assert counter.wait_s(1, 10.5) == 999.5
    counter.granted(LOOK, 0, 0, 0.3, 1009.7)
    assert counter.wait_s(1, 1009.8) == 1
