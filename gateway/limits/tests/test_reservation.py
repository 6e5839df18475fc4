"""The arithmetic of what is charged ahead and corrected afterwards, without clock or store."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.counters import MONTH, Counter
from gateway.snapshot.picture import Limit, Metric

NEAR = 1e-3
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pause"), st.floats(0, 20), st.none()),
        st.tuples(st.just("reserve"), st.integers(1, 100), st.integers(0, 150)),
        st.tuples(st.just("settle"), st.integers(0, 20), st.none()),
    ),
    max_size=60,
)


class Calls:
    """Calls that reserve of one counter, and use more or less than that."""

    def __init__(self, per: float | str) -> None:
        limit = Limit(Metric.TOKENS_OUT, 100, per)
        self.counter = Counter(limit, "", "acme")
        if per == MONTH:
            self.counter.leased = self.counter.lease = 100.0
        self.now = self.began_at = 1000.0
        self.open: list[tuple[int, int]] = []
        self.charged = 0.0
        self.owed = 0.0

    def reserve(self, cost: int, used: int) -> bool:
        if self.counter.lacks(cost, self.now):
            return False
        self.counter.take(cost, self.now)
        self.open.append((cost, used))
        self.charged += cost
        return True

    def settle(self, which: int) -> None:
        cost, used = self.open.pop(which % len(self.open))
        if used <= cost:
            self.counter.put_back(cost - used)
        else:
            assert self.counter.owe(used - cost, self.now) == 0, "a counter alone holds all there is"
            self.owed += used - cost
        self.charged += used - cost

    def follow(self, steps) -> None:
        for what, first, second in steps:
            if what == "pause":
                self.now += first
            elif what == "reserve":
                self.reserve(first, second)
            elif self.open:
                self.settle(first)


@given(STEPS)
def test_what_is_charged_never_exceeds_burst_and_refill_but_by_what_is_owed(steps):
    calls = Calls(10.0)
    calls.follow(steps)
    assert calls.charged <= 100 + 10 * (calls.now - calls.began_at) + calls.owed + NEAR


@given(STEPS)
def test_all_that_is_allowed_can_be_had_once_what_is_owed_was_paid(steps):
    calls = Calls(10.0)
    calls.follow(steps)
    while calls.open:
        calls.settle(0)
    wait_s = calls.counter.wait_s(100, calls.now)
    assert wait_s <= (100 + calls.owed) / 10 + NEAR
    calls.now += wait_s + NEAR
    assert calls.reserve(100, 0)
    assert not calls.reserve(1, 0)


@given(STEPS)
def test_a_quota_has_left_what_was_not_used_of_it_to_the_token(steps):
    calls = Calls(MONTH)
    calls.follow(steps)
    assert calls.counter.lease == 100 - calls.charged
    while calls.open:
        calls.settle(0)
    assert calls.counter.lease == 100 - calls.charged
    left = max(0, int(100 - calls.charged))
    assert left == 0 or calls.reserve(left, 0)
    assert not calls.reserve(1, 0)


@given(st.integers(0, 100), st.integers(1, 300))
def test_what_a_lease_does_not_hold_is_owed_to_the_store(lease, tokens):
    counter = Counter(Limit(Metric.TOKENS_OUT, 100, 10.0), "shared", "acme", is_shared=True)
    counter.leased = counter.lease = float(lease)
    lacking = counter.owe(tokens, 1000.0)
    assert lacking == max(0, tokens - lease)
    assert counter.lease == max(0, lease - tokens)
    assert counter.leased - counter.lease + lacking == tokens, "what is spent is spent once"
