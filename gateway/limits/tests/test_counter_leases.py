"""What a token lease promises: it is renewed in time, covers what it holds, and is returned whole."""

from __future__ import annotations

import pytest

from gateway.limits.counters import LEASE_SHARE, MONTH, PROBE_S, Counter, Terms, spend
from gateway.limits.tests.counting import Asking, Bucket, lend


def leased(tokens: float, *, unit: float = 1, amount: float = 1000) -> Asking:
    counter = Asking(amount)
    counter.granted(counter.terms(unit, 10.0), tokens, amount - tokens, 0, 10.0)
    return counter


def spend_fast(counter: Counter, cost: float) -> None:
    assert spend((counter,), cost, 10.0)


def spend_slowly(counter: Counter, cost: float) -> None:
    assert not counter.lacks(cost, 10.0)
    counter.take(cost, 10.0)


either_way = pytest.mark.parametrize("pay", [spend_fast, spend_slowly])


def test_a_counter_names_its_bucket_and_its_consumer():
    counter = leased(1)
    assert (counter.key, counter.label) == ("key", "acme")


@either_way
def test_more_is_asked_for_once_less_than_half_of_a_lease_is_left(pay):
    counter = leased(10)
    pay(counter, 5)
    assert counter.requests == 0
    pay(counter, 1)
    assert counter.requests == 1


@either_way
def test_more_is_asked_for_once_a_lease_covers_one_more_cost_only(pay):
    counter = leased(6, unit=2)
    pay(counter, 2)
    assert counter.requests == 0
    pay(counter, 2)
    assert counter.requests == 1


@either_way
def test_a_bucket_of_which_a_lease_may_hold_one_cost_only_is_asked_when_a_caller_needs_it(pay):
    counter = leased(1, amount=2 / LEASE_SHARE - 1)
    pay(counter, 1)
    assert counter.requests == 0


@either_way
def test_a_bucket_of_which_a_lease_may_hold_two_costs_is_asked_ahead_of_need(pay):
    counter = leased(2, amount=2 / LEASE_SHARE)
    pay(counter, 1)
    assert counter.requests == 1


@either_way
def test_a_lease_is_spent_to_its_last_token_while_more_is_asked_for(pay):
    counter = leased(10)
    pay(counter, 10)
    assert counter.requests == 1
    assert counter.lacks(1, 10.0)


def test_a_cost_beyond_the_lease_is_left_to_its_caller_to_lease():
    counter = leased(10)
    assert not spend((counter,), 11, 10.0)
    assert (counter.requests, counter.lease) == (0, 10)


def test_a_returned_lease_is_the_store_s_again_and_was_not_spent():
    counter = leased(10)
    spend_fast(counter, 3)
    assert counter.returned() == 7
    assert counter.lacks(1, 10.0)
    assert counter.returned() == 0
    assert counter.leased == 3


def test_what_was_charged_and_not_used_is_available_again():
    counter = leased(10)
    spend_fast(counter, 10)
    counter.put_back(4)
    spend_fast(counter, 4)
    assert counter.lacks(1, 10.0)


def test_a_request_is_granted_no_more_than_it_states():
    assert lend(Bucket(100, 0.0), 1.0, Terms(1, 1, 2)) == (Bucket(98, 0.0), 2)


def test_a_bucket_that_granted_less_than_half_of_what_was_wanted_is_asked_again_after_a_short_while():
    counter = Asking(100)
    counter.granted(Terms(1, 1, 5), 2, 0, 0, 10.0)
    assert counter.wait_s(3, 10.02) == pytest.approx(10 + PROBE_S - 10.02)
    assert counter.wait_s(3, 10 + PROBE_S) == 0


def test_a_bucket_that_granted_half_of_what_was_wanted_may_be_asked_again_at_once():
    counter = Asking(100)
    counter.granted(Terms(1, 1, 4), 2, 0, 0, 0.0)
    assert counter.wait_s(3, 0.02) == 0


def test_a_bucket_that_was_never_asked_may_be_asked_at_once():
    assert Asking(100).wait_s(1, 0.0) == 0


def test_a_small_bucket_is_asked_again_before_it_has_refilled():
    counter = Asking(1, 0.01)
    counter.granted(Terms(1, 1, 1), 0, 0.95, 0, 10.0)
    assert 0 < counter.wait_s(1, 10.001) < 0.009


def test_tokens_of_a_month_that_has_ended_are_neither_spent_nor_returned():
    counter = Asking(100, MONTH)
    counter.granted(Terms(1, 1, 5), 5, 0, 1000, 10.0)
    counter.take(3, 11.0)
    counter.begin_month()
    assert counter.returned() == 0
    assert counter.state(1010.0) == (100, 0)
