"""What a counter promises while the store is unavailable, and when it shares again."""

from __future__ import annotations

import pytest

from gateway.limits.counters import MONTH, MONTH_WAIT_S, Counter, Terms, spend
from gateway.limits.tests.counting import Asking


def spent(counter: Counter, now: float, most: int = 1000) -> int:
    """Spend one by one until refused; return how many passed."""
    return next((n for n in range(most) if not spend((counter,), 1, now)), most)


def month(tokens: float, left: float, *, amount: float = 100) -> Asking:
    counter = Asking(amount, MONTH)
    counter.granted(counter.terms(1, 10.0), tokens, left, 1000, 10.0)
    return counter


def test_a_bucket_alone_admits_what_it_holds_and_what_refills():
    counter = Asking(10)
    counter.go_local()
    assert [spent(counter, now) for now in (10.0, 10.5, 99.0)] == [10, 5, 10]


def test_a_bucket_goes_alone_and_shares_again_without_a_jump():
    counter = Asking(10)
    counter.granted(Terms(1, 1, 4), 4, 6, 0, 10.0)
    assert spend((counter,), 4, 10.0)
    counter.go_local()
    assert counter.state(10.0) == pytest.approx((6, 0.4))
    assert spend((counter,), 3, 10.0)
    assert counter.go_shared() == 3
    assert counter.state(10.0) == pytest.approx((3, 0.7))


def test_a_counter_that_shares_again_spends_only_what_it_leases():
    counter = Asking(10)
    counter.go_local()
    counter.go_shared()
    assert not counter.is_alone
    assert counter.returned() == 0
    assert not spend((counter,), 1, 0.0)
    assert counter.wait_s(1, 0.0) == 0, "the store may be asked"
    assert counter.owe(1, 0.0) == 1
    assert counter.is_stale(0.0)


def test_a_shared_bucket_is_believed_to_be_full_again_until_the_store_answers():
    counter = Asking(10)
    counter.granted(Terms(1, 1, 1), 0, 2, 0, 10.0)
    counter.go_local()
    counter.go_shared()
    assert counter.left_now(10.0) == 10


def test_nothing_is_asked_for_while_the_store_is_unavailable():
    counter = month(5, 20)
    assert counter.low > 0
    counter.go_local()
    assert spent(counter, 11.0) == 25
    assert counter.requests == 0


@pytest.mark.parametrize(("left", "passes"), [(3, 8), (0, 5), (-4, 5)])
def test_a_quota_alone_is_spent_to_what_was_known_to_be_left_of_it(left, passes):
    counter = month(5, left)
    counter.go_local()
    assert counter.state(11.0) == (passes, 999)
    assert spent(counter, 11.0) == passes


def test_a_store_that_fails_again_restores_nothing():
    quota = month(5, 20)
    quota.go_local()
    assert spend((quota,), 15, 11.0)
    quota.go_local()
    assert spent(quota, 11.0) == 10
    assert quota.go_shared() - quota.held == 20


def test_a_quota_alone_owes_the_store_what_it_spent_beyond_its_lease():
    quota = month(5, 20)
    quota.go_local()
    assert spend((quota,), 12, 11.0)
    assert quota.go_shared() - quota.held == 7


def test_a_quota_alone_begins_anew_with_the_month_and_owes_nothing_of_the_last():
    quota = month(5, 20)
    quota.go_local()
    assert spent(quota, 11.0) == 25
    quota.begin_month()
    assert quota.state(1010.0) == (100, 0)
    assert spend((quota,), 40, 1010.0)
    alone = quota.go_shared()
    assert alone == 65
    assert alone - quota.held == 40


def test_a_quota_that_ends_alone_with_some_left_begins_the_next_month_whole():
    quota = month(5, 20)
    quota.go_local()
    assert spend((quota,), 3, 11.0)
    quota.begin_month()
    assert spent(quota, 1010.0) == 100
    assert quota.state(1010.0) == (0, 0)
    assert quota.wait_s(1, 1010.0) == MONTH_WAIT_S
    assert quota.go_shared() - quota.held == 100
