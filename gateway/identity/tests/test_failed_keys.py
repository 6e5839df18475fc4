"""The budget of wrong keys by IP address."""

from gateway.identity import failed_keys
from gateway.identity.failed_keys import FailedKeys
from gateway.refusals import Reason, Refused

WRONG = Refused(Reason.UNAUTHENTICATED)


def answers(budget, *ips):
    return [budget.charged(ip, WRONG).reason is WRONG.reason for ip in ips]


def test_addresses_do_not_share_a_budget_but_an_ipv6_network_does():
    budget = FailedKeys(2)
    assert answers(budget, *["192.0.2.1"] * 3, "192.0.2.2") == [True, True, False, True]
    assert answers(budget, "2001:db8::1", "2001:db8::2", "2001:db8::3") == [True, True, False]
    assert answers(budget, "2001:db8:0:1::1") == [True]


def test_an_ipv4_address_is_the_same_in_ipv6_form():
    assert answers(FailedKeys(1), "192.0.2.1", "::ffff:192.0.2.1") == [True, False]


def test_the_addresses_that_are_remembered_are_bounded(monkeypatch):
    monkeypatch.setattr(failed_keys, "ADDRESSES_KEPT", 3)
    budget = FailedKeys(1)
    answers(budget, *(f"192.0.2.{number}" for number in range(100)))
    assert len(budget._failures) == 3
    assert answers(budget, "192.0.2.99", "192.0.2.1") == [False, True]
