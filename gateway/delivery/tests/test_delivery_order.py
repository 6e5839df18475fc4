import heapq
import random
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.delivery.order import DeliveryOrder
from gateway.durable.attempts import Retry
from gateway.durable.readers import Delivery
from gateway.log.event import Event

NEVER_LOST_S = 1e9


def event(id_, key="k", attempt=1):
    return Delivery(Event("c", key, id_, "", b"1"), attempt, "", 0, key=key)


def retry(one, next_at, tries=1):
    return Retry(one.event.id, one.key, tries, 0.0, next_at)


def new(*retries, by_key=True, lost_after_s=NEVER_LOST_S):
    return DeliveryOrder(retries, by_key=by_key, lost_after_s=lost_after_s)


def test_one_of_a_key_is_sent_at_a_time_and_other_keys_do_not_wait():
    order = new()
    a1, a2, b1 = event(1, "a"), event(2, "a"), event(3, "b")
    assert [order.take(one, 0) for one in (a1, a2, b1)] == [None, None, None]
    assert [order.is_sending(one) for one in (a1, a2, b1)] == [True, False, True]
    assert order.in_hand == 3
    assert list(order.waiting()) == [a2]
    assert order.settled(a1) == (a2, [])
    assert order.is_sending(a2)
    assert order.settled(a2) == order.settled(b1) == (None, [])
    assert order.in_hand == 0


def test_what_waits_behind_a_failed_one_is_put_off_until_after_it():
    order = new()
    a1, a2, a3 = event(1), event(2), event(3)
    for one in (a1, a2, a3):
        order.take(one, 0)
    assert order.failed(a1, retry(a1, 300)) == [a1, a2, a3]
    later = [order.postpone(one, 0) for one in (a1, a2, a3)]
    assert later == sorted(later)
    assert later[0] == 300
    assert order.take(a3, 10) > order.take(a2, 10) > order.take(a1, 10) == 290
    assert order.take(a1, 300) is None
    assert order.is_sending(a1)


def test_tries_of_an_earlier_run_are_remembered():
    a1, a2 = event(1), event(2)
    order = new(retry(a1, 300, tries=4))
    assert order.retry(1).tries == 4
    assert order.take(a2, 0) > 300
    assert order.take(a1, 300) is None
    assert order.is_sending(a1)


def test_an_event_that_the_log_has_lost_holds_up_its_key_for_a_while_only():
    a1, a2 = event(1), event(2)
    order = new(retry(a1, 10), lost_after_s=60)
    assert order.take(a2, 11) is not None
    assert order.take(a2, 71) is None
    assert order.is_sending(a2)


def test_in_the_order_of_the_channel_another_event_means_that_the_first_is_gone():
    a1, b2 = event(1, "a"), event(2, "b")
    order = new(retry(a1, 1e6), by_key=False)
    assert order.take(b2, 0) is None
    assert order.is_sending(b2)


def test_what_is_given_again_while_it_is_in_hand_is_not_sent_twice():
    order = new()
    a1, a2 = event(1), event(2)
    order.take(a1, 0)
    order.take(a2, 0)
    assert order.take(event(1, attempt=2), 30) is order.take(event(2, attempt=2), 30) is None
    assert order.in_hand == 2


def test_who_waits_behind_one_that_was_put_off_makes_room_for_it():
    order = new()
    a1, a2, a3 = event(1), event(2), event(3)
    order.take(a1, 0)
    order.take(a2, 0)
    order.failed(a1, retry(a1, 5))  # a2 is put off behind it
    order.take(a1, 5)
    order.take(a3, 5)
    assert order.settled(a1) == (None, [a3])
    assert order.in_hand == 0


def test_an_event_is_lost_from_the_instant_on_that_it_had_to_be_back():
    a1, a2 = event(1), event(2)
    order = new(retry(a1, 10), lost_after_s=60)
    assert order.take(a2, 69.9) is not None
    assert order.take(a2, 70) is None
    assert order.is_sending(a2)


def test_a_lost_event_that_comes_back_is_taken_as_a_new_one():
    a1, a2 = event(1), event(2)
    order = new(retry(a1, 10, tries=4), lost_after_s=60)
    order.take(a2, 71)
    assert order.retry(1) is None
    assert order.take(a1, 72) is None
    assert order.is_sending(a1)
    order.settled(a1)
    assert order.settled(a2) == (None, [])


def test_a_postponed_event_is_not_lost_before_its_next_attempt():
    a1, a2 = event(1), event(2)
    order = new(lost_after_s=60)
    order.take(a1, 0)
    order.failed(a1, retry(a1, 300))
    order.postpone(a1, 0)
    assert order.take(a2, 200) > 100
    assert not order.is_sending(a2)


def test_an_event_that_is_sent_for_long_is_not_lost():
    a1, a2 = event(1), event(2)
    order = new(lost_after_s=60)
    order.take(a1, 0)
    assert order.take(a2, 100) is None
    assert not order.is_sending(a2)
    assert order.settled(a1) == (a2, [])


def test_an_event_is_postponed_no_longer_than_its_next_attempt_requires():
    a1 = event(1)
    order = new()
    order.take(a1, 0)
    order.failed(a1, retry(a1, 0.5))
    assert order.postpone(a1, 0) == 0.5
    assert order.postpone(a1, 0, at_least_s=3) == 3


def test_an_event_that_comes_again_after_it_was_settled_is_sent_again():
    a1, a2 = event(1), event(2)
    order = new()
    order.take(a1, 0)
    order.take(a2, 0)
    order.settled(a1)
    assert order.take(a1, 1) is None
    assert order.is_sending(a1)
    order.settled(a1)
    assert order.settled(a2) == (None, [])


def test_nothing_is_remembered_of_what_was_settled():
    a1 = event(1)
    order = new()
    order.take(a1, 0)
    order.failed(a1, retry(a1, 5))
    order.take(a1, 5)
    order.settled(a1)
    assert order.retry(1) is None
    assert not order._keys


class Log:
    """Redelivers events when they are due; its receiver fails at random."""

    def __init__(self, seed, keys, events):
        self.chance = random.Random(seed)
        self.order = new()
        self.number = count()
        self.now = 0.0
        self.due, self.sending, self.delivered, self.tries = [], [], [], {}
        for id_ in range(1, events + 1):
            self.later(event(id_, f"k{self.chance.randrange(keys)}"), 0)

    def later(self, one, seconds):
        heapq.heappush(self.due, (self.now + seconds, next(self.number), one))

    def step(self):
        if self.due and (not self.sending or self.chance.random() < 0.5):
            at, _, one = heapq.heappop(self.due)
            self.now = max(self.now, at)
            later = self.order.take(one, self.now)
            if later is not None:
                self.later(one, later + 1e-6)
            elif self.order.is_sending(one):
                self.sending.append(one)
        else:
            self.answer(self.sending.pop(self.chance.randrange(len(self.sending))))

    def answer(self, one):
        assert one.key not in {other.key for other in self.sending}
        self.tries[one.event.id] = self.tries.get(one.event.id, 0) + 1
        if self.tries[one.event.id] < 4 and self.chance.random() < 0.4:
            behind = self.order.failed(one, retry(one, self.now + self.chance.random() * 100))
        else:
            self.delivered.append(one)
            following, behind = self.order.settled(one)
            self.sending += [following] if following is not None else []
        for other in behind:
            self.later(other, self.order.postpone(other, self.now) + 1e-6)


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 30))
def test_each_key_is_delivered_in_its_order_once_whatever_fails(seed, keys, events):
    log = Log(seed, keys, events)
    while log.due or log.sending:
        log.step()
    assert sorted(one.event.id for one in log.delivered) == list(range(1, events + 1))
    for name in {one.key for one in log.delivered}:
        ids = [one.event.id for one in log.delivered if one.key == name]
        assert ids == sorted(ids)
    assert log.order.in_hand == 0
