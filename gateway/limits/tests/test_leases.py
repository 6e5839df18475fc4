"""The store's scripts and its manners, on a real Valkey."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis

from gateway.limits.counters import Terms, month_ends_at
from gateway.limits.store import LimitStore

ONE = Terms(1, 1, 1)
NOTHING = Terms(0, 0, 0)


@pytest.fixture
async def store(redis):
    store = LimitStore(redis)
    yield store
    await store.stop()


async def test_a_bucket_grants_what_it_has_and_not_more(store):
    granted = [await store.lease("b", 0.01, 5, Terms(1, 1, 3)) for _ in range(3)]
    assert [grant.tokens for grant in granted] == [3, 2, 0]
    assert granted[-1].left == pytest.approx(0, abs=0.1)
    assert granted[-1].reset_s == 0


async def test_tokens_returned_can_be_leased_again_but_never_overfill(store):
    await store.lease("b", 0.001, 5, Terms(5, 5, 5))
    assert (await store.lease("b", 0.001, 5, NOTHING, back=2)).left == pytest.approx(2, abs=0.1)
    assert (await store.lease("b", 0.001, 5, NOTHING, back=100)).left == 5


async def test_a_cost_larger_than_the_bucket_leaves_it_in_debt(store):
    granted = await store.lease("b", 0.001, 5, Terms(20, 5, 20))
    assert granted.tokens == 20
    assert granted.left == pytest.approx(-15, abs=0.1)
    assert (await store.lease("b", 0.001, 5, ONE)).tokens == 0


async def test_a_bucket_is_left_alone_rather_than_granting_less_than_is_of_use(store):
    await store.lease("b", 0.001, 5, Terms(2, 2, 2))
    granted = await store.lease("b", 0.001, 5, Terms(4, 4, 4))
    assert granted.tokens == 0
    assert granted.left == pytest.approx(3, abs=0.1)


async def test_a_quota_counts_by_the_calendar_month_of_the_store(store, redis):
    seconds, microseconds = await redis.time()
    granted = await store.lease("q", 0, 100, Terms(60, 60, 60))
    now = seconds + microseconds / 1e6
    assert granted.reset_s == pytest.approx(month_ends_at(now) - now, abs=5)
    assert (await store.lease("q", 0, 100, Terms(60, 60, 60))).tokens == 0
    today = datetime.fromtimestamp(now, UTC)
    await redis.hset("q", "at", today.year * 12 + today.month - 1)  # as though last used in the month before
    assert (await store.lease("q", 0, 100, Terms(60, 60, 60))).left == 40


async def test_a_quota_keeps_what_was_used_when_its_amount_changes(store):
    await store.lease("q", 0, 100, Terms(60, 60, 60))
    assert (await store.lease("q", 0, 1000, NOTHING)).left == 940


async def test_a_bucket_whose_clock_jumped_back_goes_on_refilling(store, redis):
    await store.lease("b", 1000, 5, Terms(5, 5, 5))
    await redis.hset("b", "at", int((time.time() + 3600) * 1e6))
    await store.lease("b", 1000, 5, NOTHING)
    await asyncio.sleep(0.02)
    assert (await store.lease("b", 1000, 5, NOTHING)).left == 5


async def test_what_is_kept_lapses_once_it_says_nothing_any_more(store, redis):
    await store.lease("b", 10, 5, Terms(5, 5, 5))
    assert 0 < await redis.pttl("b") <= 61_000
    await store.lease("q", 0, 5, ONE)
    assert 0 < await redis.pttl("q") <= 33 * 86_400_000


async def test_slots_are_taken_up_to_the_amount_and_given_back(store):
    assert [await store.take_slot("o", f"p:{n}", 2) for n in range(3)] == [(True, 0), (True, 1), (False, 2)]
    await store.drop_slot("o", "p:0")
    assert await store.take_slot("o", "p:3", 2) == (True, 1)


async def test_a_slot_asked_for_twice_is_one_slot(store):
    assert await store.take_slot("o", "p:1", 1) == (True, 0)
    assert await store.take_slot("o", "p:1", 1) == (True, 0)


async def test_slots_without_heartbeat_lapse_and_others_stay(store, redis):
    await store.take_slot("o", "dead:1", 2)
    await store.take_slot("o", "live:1", 2)
    await redis.zadd("o", {"dead:1": 1})  # its instant has passed
    assert await store.renew_slots("o", ["live:1"]) == 1
    assert await store.take_slot("o", "live:2", 2) == (True, 1)


async def test_a_heartbeat_brings_back_what_an_emptied_store_forgot(store, redis):
    await store.take_slot("o", "p:1", 1)
    await redis.flushall()
    assert await store.renew_slots("o", ["p:1"]) == 1
    assert await store.take_slot("o", "p:2", 1) == (False, 1)


async def test_scripts_that_the_store_forgot_are_loaded_again(store, redis):
    await store.lease("b", 1, 5, ONE)
    await redis.script_flush()
    answers = await asyncio.gather(store.lease("b", 1, 5, ONE), store.take_slot("o", "p:1", 1), store.ping())
    assert answers[0].tokens == 1
    assert answers[1:] == [(True, 0), True]


async def test_what_is_leased_ahead_shrinks_as_the_bucket_runs_dry(store):
    taken = [(await store.lease("b", 0.001, 20, Terms(1, 1, 1, 9))).tokens for _ in range(8)]
    assert taken == [6, 4, 3, 2, 2, 1, 1, 1]


async def test_where_demand_keeps_a_bucket_dry_tokens_still_come_in_handfuls(store):
    await store.lease("b", 1000, 1000, Terms(990, 990, 990))
    assert (await store.lease("b", 1000, 1000, Terms(1, 1, 1, 40))).tokens >= 10


async def test_many_questions_at_once_share_round_trips(store):
    await store.ping()
    before = store.calls
    await asyncio.gather(*(store.lease(f"b{n}", 1, 5, ONE) for n in range(100)))
    assert store.calls - before <= 3


async def test_callers_that_go_away_at_any_point_never_get_anothers_answer(redis):
    store = LimitStore(redis, timeout_s=20)

    async def ask(n: int) -> float:
        granted = await store.lease(f"own:{n}", 0.001, n + 1, Terms(1, 1, 1))
        assert granted.left == pytest.approx(n, abs=0.1)
        return granted.left

    chance = random.Random(7)
    for _ in range(20):
        tasks = {n: asyncio.create_task(ask(n)) for n in range(50)}
        for task in tasks.values():
            if chance.random() < 0.5:
                asyncio.get_running_loop().call_later(chance.random() * 0.002, task.cancel)
        done = await asyncio.gather(*tasks.values(), return_exceptions=True)
        assert all(isinstance(answer, float | asyncio.CancelledError) for answer in done)
        await asyncio.gather(*(store.lease(f"own:{n}", 0.001, n + 1, NOTHING, back=1000) for n in range(50)))


async def test_a_reply_of_error_counts_as_away(store, redis):
    await redis.set("wrong", "text")
    assert await store.lease("wrong", 1, 5, ONE) is None
    assert store.is_unavailable


async def test_a_store_that_cannot_be_reached_is_told_at_once_and_then_left_alone(unused_tcp_port):
    client = Redis(port=unused_tcp_port)
    store = LimitStore(client)
    began_at = time.monotonic()
    assert await store.lease("b", 1, 5, ONE) is None
    assert time.monotonic() - began_at < 2
    calls = store.calls
    assert [await store.lease("b", 1, 5, ONE) for _ in range(50)] == [None] * 50
    assert store.calls == calls
    await client.aclose()


async def test_a_store_that_hangs_counts_as_away_and_is_found_again(valkey, store):
    await store.ping()
    valkey.freeze()
    try:
        began_at = time.monotonic()
        answers = await asyncio.gather(*(store.lease(f"b{n}", 1, 5, ONE) for n in range(600)))
        assert answers == [None] * 600
        assert time.monotonic() - began_at < 2
    finally:
        valkey.thaw()
    async with asyncio.timeout(5):
        while not await store.ping():
            await asyncio.sleep(0.05)
    assert not store.is_unavailable
    answers = await asyncio.gather(*(store.lease(f"own{n}", 0.001, n + 1, ONE) for n in range(20)))
    assert [answer.left for answer in answers] == [pytest.approx(n, abs=0.1) for n in range(20)]
