"""How large a lease is: it follows what this process recently spent."""

from __future__ import annotations

import pytest

from gateway.limits.counters import LEASE_S, RATE_WINDOW_S, Counter, Terms
from gateway.snapshot.picture import Limit, Metric


class Spender:
    """A process that spends from one large shared bucket, which grants all that is leased."""

    def __init__(self) -> None:
        self.counter = Counter(Limit(Metric.MESSAGES_IN, 10**6), "key", "acme", is_shared=True)

    def spends(self, tokens: float, now: float, *, keeps: float = 0) -> None:
        """Spend tokens, and keep some of the lease."""
        leased = tokens + keeps - self.counter.lease
        self.counter.granted(Terms(0, 0, leased), leased, 10**6, 0, now)
        self.counter.take(tokens, now)

    def ahead(self, now: float) -> float:
        """Return how much would be held ahead of need."""
        requested = self.counter.terms(0, now)
        assert requested.want == 0
        return self.counter.lease + requested.ahead


@pytest.fixture
def spender() -> Spender:
    return Spender()


def test_nothing_is_leased_ahead_of_the_first_cost(spender):
    assert spender.ahead(0.0) == 0


def test_a_lease_lasts_an_interval_at_the_rate_of_the_last(spender):
    spender.spends(100, 0.1, keeps=10)
    assert spender.ahead(LEASE_S) == pytest.approx(100)
    spender.spends(30, 0.3, keeps=10)
    assert spender.ahead(2 * LEASE_S) == pytest.approx(30)


def test_a_pause_of_an_interval_shrinks_a_lease(spender):
    spender.spends(100, 0.1)
    assert spender.ahead(LEASE_S) == pytest.approx(100)
    assert spender.ahead(2 * LEASE_S) == 0


def test_a_shorter_pause_does_not_shrink_a_lease(spender):
    spender.spends(100, 0.1)
    spender.ahead(LEASE_S)
    assert spender.ahead(LEASE_S + 0.05) == pytest.approx(100)


def test_a_rising_demand_enlarges_a_lease_at_once(spender):
    spender.spends(10, 0.1)
    spender.ahead(LEASE_S)
    spender.spends(100, LEASE_S + 0.01)
    assert spender.ahead(LEASE_S + 0.01) == pytest.approx(100 * LEASE_S / RATE_WINDOW_S)


def test_what_is_returned_was_not_spent(spender):
    spender.spends(100, 0.1, keeps=60)
    spender.counter.returned()
    assert spender.ahead(LEASE_S) == pytest.approx(100)


def test_what_is_put_back_is_deducted_from_what_was_spent_after_it(spender):
    spender.spends(100, 0.1)
    spender.ahead(LEASE_S)
    spender.counter.put_back(50)
    spender.spends(40, 0.3, keeps=50)
    assert spender.ahead(2 * LEASE_S) == 50, "nothing on top of the lease"


@pytest.mark.parametrize("cost", [1, 5])
def test_a_slow_caller_s_lease_holds_two_of_its_latest_cost(spender, cost):
    spender.counter.terms(3, 10.0)
    requested = spender.counter.terms(cost, 20.0)
    assert (requested.short, requested.enough, requested.want, requested.ahead) == (cost, cost, cost, cost)
    assert spender.ahead(30.0) == 2 * cost
