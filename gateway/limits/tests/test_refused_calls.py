"""The budget of refused calls by IP address."""

import pytest

from gateway.limits import refused_calls
from gateway.limits.refused_calls import RefusedCalls
from gateway.refusals import Reason, Refused


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def budget(clock):
    return RefusedCalls(60, clock)


def spent(budget, ip="192.0.2.1"):
    """Charge calls until one is refused, and return how many passed."""
    for number in range(10_000):
        if budget.charged(ip, Refused(Reason.NOT_FOUND)).reason is Reason.RATE_LIMITED:
            return number
    raise AssertionError("never refused")


def test_the_burst_is_ten_seconds_of_the_rate_and_refills(budget, clock):
    assert spent(budget) == 10
    clock.now += 3
    assert spent(budget) == 3
    clock.now += 3600
    assert spent(budget) == 10


def test_the_refusal_names_when_to_retry(budget):
    spent(budget)
    with pytest.raises(Refused) as caught:
        budget.charge("192.0.2.1")
    assert (caught.value.cause, caught.value.retry_after_s) == ("refused-calls", 1.0)


def test_addresses_do_not_share_a_budget_but_an_ipv6_network_does(budget):
    assert spent(budget) == spent(budget, "192.0.2.2") == spent(budget, "2001:db8::1") == 10
    assert spent(budget, "2001:db8::ffff") == 0
    assert spent(budget, "2001:db8:0:1::1") == 10


@pytest.mark.parametrize("reason", [Reason.OVERLOADED, Reason.INTERNAL, Reason.DRAINING, Reason.RATE_LIMITED])
def test_faults_of_the_gateway_and_throttling_cost_nothing(budget, reason):
    refused = Refused(reason)
    assert all(budget.charged("192.0.2.1", refused) is refused for _ in range(50))


def test_the_table_is_bounded_and_the_address_charged_last_is_kept(budget, monkeypatch):
    monkeypatch.setattr(refused_calls, "ADDRESSES_KEPT", 100)
    spent(budget)
    for number in range(1_000):
        budget.charged(f"10.0.{number // 250}.{number % 250}", Refused(Reason.NOT_FOUND))
        assert spent(budget) == 0
    assert len(budget._buckets) == 100
