"""The arithmetic of limits, without clock or store."""

from __future__ import annotations

import calendar
import itertools
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.counters import LEASE_SHARE, Counter, Flood, Terms, month_ends_at, spend, terms
from gateway.limits.tests.counting import Bucket, alone, lend
from gateway.snapshot.picture import Limit, Metric

SIZES = st.integers(1, 50)
PERS = st.sampled_from([0.5, 1.0, 3.0, 10.0, 60.0])
STEPS = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 10)), min_size=1, max_size=60)
NEAR = 1e-4


@given(SIZES, PERS, STEPS)
def test_a_counter_admits_exactly_what_a_token_bucket_would(size, per, steps):
    counter, bucket, now = alone(size, per), Bucket(size, 0.0), 1000.0
    bucket = replace(bucket, at_s=now)
    for pause, cost in steps:
        now += pause
        bucket = bucket.refilled(size / per, size, now)
        if abs(bucket.tokens - cost) < NEAR:
            continue  # a rounding either way is right
        assert spend((counter,), cost, now) == (bucket.tokens >= cost)
        if bucket.tokens >= cost:
            bucket = replace(bucket, tokens=bucket.tokens - cost)


@given(SIZES, PERS, st.integers(1, 100), STEPS)
def test_in_no_window_more_is_admitted_than_burst_and_refill(amount, per, burst, steps):
    counter, now, admitted = alone(amount, per, burst), 1000.0, []
    for pause, cost in steps:
        now += pause
        if spend((counter,), cost, now):
            admitted.append((now, cost))
    for first, last in itertools.combinations_with_replacement(range(len(admitted)), 2):
        spent = sum(cost for _, cost in admitted[first : last + 1])
        assert spent <= burst + amount / per * (admitted[last][0] - admitted[first][0]) + NEAR


@given(SIZES, PERS, STEPS)
def test_the_wait_told_is_neither_too_short_nor_too_long(size, per, steps):
    counter, now = alone(size, per), 1000.0
    for pause, cost in steps:
        now += pause
        wait_s = counter.wait_s(cost, now)
        assert not counter.lacks(cost, now + wait_s + 1e-9)
        if wait_s > NEAR:
            assert counter.lacks(cost, now + wait_s - NEAR)
        elif not counter.lacks(cost, now):
            counter.take(cost, now)


@given(st.integers(1, 20), PERS, st.lists(st.integers(1, 200), min_size=1, max_size=30))
def test_costs_larger_than_the_bucket_are_exact_over_time(size, per, costs):
    counter, start, now, spent = alone(size, per), 1000.0, 1000.0, 0
    for cost in costs:
        now += counter.wait_s(cost, now) + 1e-9
        assert not counter.lacks(cost, now)
        counter.take(cost, now)
        spent += cost
        assert spent <= size + size / per * (now - start) + max(0, cost - size) + NEAR
    owed = sum(costs) - size
    assert now - start <= max(0, owed) * per / size + NEAR


@given(SIZES, SIZES, STEPS)
def test_what_one_limit_refuses_costs_the_other_nothing(size, other_size, steps):
    one, other, now = alone(size), alone(other_size, 10.0), 1000.0
    for pause, cost in steps:
        now += pause
        before = [(counter.state(now)[0], counter.lease) for counter in (one, other)]
        if not spend((one, other), cost, now):
            after = [(counter.state(now)[0], counter.lease) for counter in (one, other)]
            assert after == [pytest.approx(pair, abs=NEAR) for pair in before]


@given(
    cost=st.floats(0, 1e6), unit=st.floats(0, 1e3), waiting=st.floats(0, 1e6), held=st.floats(0, 1e6),
    size=st.floats(1, 1e9), rate=st.floats(0, 1e9),
)  # fmt: skip
def test_a_lease_is_never_larger_than_its_share_the_cost_or_what_waits(cost, unit, waiting, held, size, rate):
    requested = terms(cost=cost, unit=unit, waiting=waiting, held=held, size=size, rate=rate)
    assert requested.short == max(0.0, cost - held)
    assert requested.short <= requested.want
    assert held + requested.want + requested.ahead <= max(held, cost, min(waiting, size), size * LEASE_SHARE) * (
        1 + 1e-9
    )
    assert held + requested.enough == pytest.approx(min(cost, size), abs=1e-3)


class Shared:
    """Processes that share one bucket, step by step, with the arithmetic of the real ones."""

    def __init__(self, limit: Limit, processes: int) -> None:
        self.rate, self.size, self.now = limit.amount / float(limit.per), limit.amount, 1000.0
        self.bucket = Bucket(self.size, self.now)
        self.counters = [Counter(limit, f"process {n}", "acme", is_shared=True) for n in range(processes)]
        self.spent: list[tuple[float, int]] = []
        self.most_held = 0.0

    def demand(self, process: int, cost: int) -> None:
        counter = self.counters[process]
        if counter.lease < cost and counter.wait_s(cost, self.now) <= 0:
            self.bucket = self.bucket.refilled(self.rate, self.size, self.now)
            requested = counter.terms(cost, self.now)
            self.bucket, tokens = lend(self.bucket, self.rate, requested)
            counter.granted(requested, tokens, self.bucket.tokens, 0, self.now)
        if spend((counter,), cost, self.now):
            self.spent.append((self.now, cost))
        self.most_held = max(self.most_held, counter.lease)

    def give_back(self, process: int) -> None:
        counter = self.counters[process]
        self.bucket = self.bucket.refilled(self.rate, self.size, self.now)
        self.bucket = replace(self.bucket, tokens=min(self.size, self.bucket.tokens + counter.returned()))


@given(
    processes=st.integers(1, 4),
    amount=st.integers(1, 200),
    per=PERS,
    steps=st.lists(st.tuples(st.floats(0, 2), st.integers(0, 3), st.integers(1, 20), st.booleans()), max_size=80),
)
def test_processes_exceed_a_shared_limit_by_one_lease_each_at_most(processes, amount, per, steps):
    limit = Limit(Metric.MESSAGES_IN, amount, per)
    shared = Shared(limit, processes)
    for pause, process, times, is_idle in steps:
        shared.now += pause
        for _ in range(times):
            shared.demand(process % processes, 1)
        if is_idle:
            shared.give_back(process % processes)
    lease = max(1, amount * LEASE_SHARE)
    assert shared.most_held <= lease
    over = 0 if processes == 1 else processes * lease
    for first, last in itertools.combinations_with_replacement(range(len(shared.spent)), 2):
        spent = sum(cost for _, cost in shared.spent[first : last + 1])
        allowed = amount + shared.rate * (shared.spent[last][0] - shared.spent[first][0])
        assert spent <= allowed + over + NEAR


@pytest.mark.parametrize("amount", [20, 50, 100, 1000])
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_a_burst_over_several_processes_is_spent_to_its_end_before_anyone_is_refused(amount, processes):
    shared = Shared(Limit(Metric.REQUESTS, amount, 60.0), processes)
    for process in itertools.cycle(range(processes)):
        before = len(shared.spent)
        shared.demand(process, 1)
        if len(shared.spent) == before:
            break
        shared.now += 0.002
    assert len(shared.spent) >= amount - processes


@given(st.integers(31_536_000, 13_569_465_600))
def test_a_month_ends_when_the_calendar_says_so(unix_s):
    instant = datetime.fromtimestamp(unix_s, UTC)
    ends = datetime.fromtimestamp(month_ends_at(instant.timestamp()), UTC)
    days = calendar.monthrange(instant.year, instant.month)[1]
    midnight = instant.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert (ends - midnight).days == days
    assert ends.day == 1


@given(st.integers(1, 50), st.integers(2, 30))
def test_a_flood_is_called_one_only_past_its_multiple_of_the_amount(amount, close_at):
    flood = Flood(Limit(Metric.MESSAGES_IN, amount, 1.0, close_at=close_at))
    refusals = next(n for n in itertools.count(1) if flood.rises(1, 1000.0))
    assert amount * close_at <= refusals <= amount * close_at + 2


def test_a_flood_below_its_multiple_is_never_called_one():
    flood = Flood(Limit(Metric.MESSAGES_IN, 10, 1.0, close_at=20))
    assert not any(flood.rises(1, 1000.0 + n / 190) for n in range(5000))


def test_a_flood_is_more_than_its_multiple_of_the_amount():
    flood = Flood(Limit(Metric.MESSAGES_IN, 4, 1.0, close_at=2))
    assert [flood.rises(1, 0.0) for _ in range(9)] == [False] * 8 + [True]


@pytest.mark.parametrize("close_at", [0.1, 1])
def test_however_small_its_multiple_a_flood_is_more_than_the_amount_and_one(close_at):
    flood = Flood(Limit(Metric.MESSAGES_IN, 7, 1.0, close_at=close_at))
    assert not flood.rises(8, 0.0)
    assert flood.rises(0.5, 0.0)


@pytest.mark.parametrize("per", [None, 0, -1])
def test_a_limit_without_a_window_counts_by_the_second(per):
    counter = Counter(Limit(Metric.MESSAGES_IN, 10, per), "", "acme")
    assert spend((counter,), 10, 0.0)
    assert counter.wait_s(5, 0.0) == pytest.approx(0.5, abs=NEAR)


@pytest.mark.parametrize("amount", [0, -1])
def test_a_limit_of_nothing_lets_nothing_through_and_tells_a_wait(amount):
    counter = alone(amount, 10.0)
    counter.lease = 0
    assert not spend((counter,), 1, 1000.0)
    assert counter.wait_s(1, 1000.0) == 10


def test_alone_a_quota_goes_on_with_what_was_left_and_owes_it_later():
    counter = Counter(Limit(Metric.MESSAGES_IN, 100, "month"), "key", "acme", is_shared=True)
    counter.granted(Terms(1, 1, 5), 5, 20, 1000, 10.0)
    counter.go_local()
    for _ in range(25):
        assert spend((counter,), 1, 11.0)
    assert not spend((counter,), 1, 11.0)
    assert counter.wait_s(1, 11.0) == pytest.approx(999)
    assert counter.go_shared() - counter.held == 20
