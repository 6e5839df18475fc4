"""Slots of open connections as one process counts them, against a store that answers as scripted."""

import pytest

from gateway.limits.open_slots import BEAT_MAX_KEYS, BEAT_MAX_SLOTS, RETRY_S, OpenSlots
from gateway.limits.tallies import LimitUsage
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Limit, Metric

TWO = Limit(Metric.OPEN_CONNECTIONS, 2)
SHADOW = Limit(Metric.OPEN_CONNECTIONS, 2, mode="shadow")
CLOSED = Limit(Metric.OPEN_CONNECTIONS, 2, fail="closed")
KEY = "open:{consumer:acme}:open_connections"


class ScriptedStore:
    """Holds the slots of other processes beside those taken through it; unavailable on request."""

    def __init__(self):
        self.open = {}
        self.elsewhere = 0
        self.is_unavailable = False
        self.pause_left_s = 0.25
        self.renewed = []

    async def take_slot(self, key, slot, amount, *, forced=False):
        if self.is_unavailable:
            return None
        others = len(self.open.setdefault(key, set())) + self.elsewhere
        is_taken = forced or others < amount
        if is_taken:
            self.open[key].add(slot)
        return is_taken, others

    async def renew_slots(self, key, slots):
        if self.is_unavailable:
            return None
        self.renewed.append((key, tuple(slots)))
        self.open.setdefault(key, set()).update(slots)
        return len(self.open[key]) + self.elsewhere

    def drop_slot(self, key, *slots):
        self.open.setdefault(key, set()).difference_update(slots)


@pytest.fixture
def store():
    return ScriptedStore()


@pytest.fixture
def slots(store):
    return OpenSlots(store, "web-1")


async def take(slots, limit=TWO):
    slot = slots.new(KEY)
    return slot, await slots.take(slot, limit)


def recorded(usage):
    [record] = usage.take([])
    return record["consumer"], record["refused"], record["shadowed"]


async def test_the_count_rises_with_each_slot_and_falls_with_each_dropped(slots, store):
    store.elsewhere = 4
    limit = Limit(Metric.OPEN_CONNECTIONS, 10)
    first, _ = await take(slots, limit)
    assert slots.count(KEY) == 5
    second, _ = await take(slots, limit)
    assert slots.count(KEY) == 6
    slots.drop(first)
    assert slots.count(KEY) == 5
    slots.drop(first)
    assert slots.count(KEY) == 5, "a slot is dropped once"
    slots.drop(second)
    assert slots.count(KEY) == 0, "nothing is known of other processes without a slot here"
    assert store.open[KEY] == set()


async def test_the_last_free_slot_is_taken_and_the_next_caller_refused(slots):
    assert (await take(slots))[1]
    assert (await take(slots))[1]
    with pytest.raises(Refused) as caught:
        await take(slots)
    refused = caught.value
    assert (refused.reason, refused.retry_after_s) == (Reason.TOO_MANY_CONNECTIONS, RETRY_S)
    assert refused.policies == ("open_connections",)
    assert "At most 2 connections" in refused.detail


async def test_a_shadow_limit_takes_a_slot_beyond_its_amount_and_reports_it(slots, store):
    assert [(await take(slots, SHADOW))[1] for _ in range(3)] == [True, True, False]
    assert (len(store.open[KEY]), slots.count(KEY)) == (3, 3)


@pytest.mark.parametrize("limit", [TWO, SHADOW])
async def test_without_the_store_this_process_counts_alone(slots, store, limit):
    store.is_unavailable = True
    assert (await take(slots, limit))[1]
    assert (await take(slots, limit))[1]
    if limit is SHADOW:
        assert not (await take(slots, limit))[1]
        return
    with pytest.raises(Refused) as caught:
        await take(slots, limit)
    assert caught.value.reason is Reason.TOO_MANY_CONNECTIONS


@pytest.mark.parametrize(("pause_s", "retry_after_s"), [(0.25, 1.0), (3.0, 3.0)])
async def test_without_the_store_a_limit_that_fails_closed_refuses(slots, store, pause_s, retry_after_s):
    store.is_unavailable, store.pause_left_s = True, pause_s
    with pytest.raises(Refused) as caught:
        await take(slots, CLOSED)
    assert (caught.value.reason, caught.value.retry_after_s) == (Reason.OVERLOADED, retry_after_s)
    assert (await take(slots, Limit(Metric.OPEN_CONNECTIONS, 5, mode="shadow", fail="closed")))[1]


async def test_several_limits_are_taken_all_or_none(slots, store):
    usage = LimitUsage()
    one, other = Limit(Metric.OPEN_CONNECTIONS, 9), Limit(Metric.OPEN_CONNECTIONS, 0, scope="ip")
    with pytest.raises(Refused):
        await slots.take_all([(one, "a"), (other, "b")], "acme", usage)
    assert (store.open, slots.count("a"), slots.count("b")) == ({"a": set(), "b": set()}, 0, 0)
    assert recorded(usage) == ("acme", 1, 0)
    taken = await slots.take_all([(one, "a"), (one, "b")], "acme", usage)
    assert [slot.key for slot in taken] == ["a", "b"]
    assert usage.take([]) == []


async def test_a_shadow_limit_that_would_have_refused_is_recorded(slots):
    usage = LimitUsage()
    await slots.take_all([(Limit(Metric.OPEN_CONNECTIONS, 0, mode="shadow"), KEY)], "acme", usage)
    assert recorded(usage) == ("acme", 0, 1)


async def test_slots_have_names_of_their_own(slots):
    assert [slots.new(KEY).name for _ in range(2)] == ["web-1:1", "web-1:2"]


async def test_all_slots_are_dropped_when_the_process_ends(slots, store):
    for _ in range(2):
        await take(slots)
    slots.drop_all()
    assert (store.open[KEY], slots.count(KEY)) == (set(), 0)


async def test_a_heartbeat_renews_what_a_store_forgot_and_recounts(slots, store):
    held, _ = await take(slots)
    store.open.clear()
    store.elsewhere = 3
    await slots.beat()
    assert store.open[KEY] == {held.name}
    assert slots.count(KEY) == 4
    store.is_unavailable = True
    await slots.beat()
    assert slots.count(KEY) == 4, "an unavailable store changes nothing"


async def test_a_heartbeat_renews_every_slot_in_bounded_commands(slots, store):
    for _ in range(BEAT_MAX_SLOTS + 1):
        slots.new(KEY)
    await slots.beat()
    assert [len(names) for _, names in store.renewed] == [BEAT_MAX_SLOTS, 1]
    assert len({name for _, names in store.renewed for name in names}) == BEAT_MAX_SLOTS + 1


async def test_a_heartbeat_reaches_every_key(slots, store):
    for number in range(BEAT_MAX_KEYS + 1):
        slots.new(f"k{number}")
    await slots.beat()
    assert len({key for key, _ in store.renewed}) == BEAT_MAX_KEYS + 1


async def test_a_slot_dropped_during_a_heartbeat_is_not_renewed_again(slots, store):
    kept = [slots.new(KEY) for _ in range(BEAT_MAX_SLOTS + 1)]
    last = max(kept, key=lambda slot: slot.name)
    renew = store.renew_slots

    async def drop_meanwhile(key, names):
        slots.drop(last)
        return await renew(key, names)

    store.renew_slots = drop_meanwhile
    await slots.beat()
    assert last.name not in store.open[KEY]
    assert len(store.renewed) == 1, "a command without slots is not sent"


async def test_a_key_without_slots_here_is_counted_until_it_is_forgotten(slots, store):
    store.elsewhere = 3
    await slots.refresh(KEY)
    assert slots.count(KEY) == 3
    store.elsewhere = 2
    await slots.beat()
    assert slots.count(KEY) == 2
    store.is_unavailable = True
    await slots.refresh(KEY)
    assert slots.count(KEY) == 2
    slots.forget(KEY)
    assert slots.count(KEY) == 0


async def test_a_key_with_slots_here_is_not_forgotten(slots, store):
    store.elsewhere = 1
    await take(slots)
    slots.forget(KEY)
    assert slots.count(KEY) == 2


async def test_a_key_whose_last_slot_was_dropped_can_be_forgotten(slots, store):
    slot, _ = await take(slots)
    slots.drop(slot)
    store.elsewhere = 3
    await slots.refresh(KEY)
    assert slots.count(KEY) == 3
    slots.forget(KEY)
    assert slots.count(KEY) == 0
