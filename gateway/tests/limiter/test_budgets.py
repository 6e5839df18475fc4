from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.call import Call
from gateway.limiter import Limiter
from gateway.limits.budget import DRY_RUNS
from gateway.limits.counters import BELIEVED_S
from gateway.limits.open_slots import BEAT_S
from gateway.limits.store import SLOT_S
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Limit, Metric
from gateway.tests.limiter.support import MESSAGES, OPEN, REQUESTS, admitted, call, principal, refusal, reported


async def test_five_in_ten_seconds_are_five_and_the_sixth_is_told_when_to_return(limiter):
    holder = principal(REQUESTS)
    for _ in range(5):
        await limiter.admit(call(holder, Protocol.HTTP))
    refused = await refusal(limiter.admit(call(holder, Protocol.HTTP)))
    assert refused.reason is Reason.RATE_LIMITED
    assert refused.policies == ("requests-per-10s",)
    assert refused.retry_after_s == pytest.approx(2, abs=0.5)
    assert not refused.fatal


async def test_refused_calls_cost_one_round_trip_a_second_together(clocked, other):
    limiter, clock = clocked
    holder = principal(Limit(Metric.REQUESTS, 5, 36_000.0))
    assert await admitted(other, [call(holder, Protocol.HTTP) for _ in range(10)]) == 5
    assert await admitted(limiter, [call(holder, Protocol.HTTP) for _ in range(10)]) == 0
    for _ in range(3):
        calls = limiter.store.calls
        assert await admitted(limiter, [call(holder, Protocol.HTTP) for _ in range(500)]) == 0
        assert limiter.store.calls == calls
        clock.now += 1.01 * BELIEVED_S
        assert await admitted(limiter, [call(holder, Protocol.HTTP) for _ in range(500)]) == 0
        assert limiter.store.calls == calls + 1


async def test_who_returns_after_the_time_told_is_admitted(limiter):
    holder = principal(Limit(Metric.REQUESTS, 5, 1.0))
    assert await admitted(limiter, [call(holder, Protocol.HTTP) for _ in range(9)]) == 5
    refused = await refusal(limiter.admit(call(holder, Protocol.HTTP)))
    await asyncio.sleep(refused.retry_after_s)
    await limiter.admit(call(holder, Protocol.HTTP))


async def test_many_at_once_on_a_cold_limiter_are_admitted_exactly(limiter):
    holder = principal(Limit(Metric.REQUESTS, 1000, 3600.0))
    assert await admitted(limiter, [call(holder, Protocol.HTTP) for _ in range(1500)]) == 1000


async def test_a_small_budget_is_exact_over_several_processes(limiter, other):
    holder = principal(MESSAGES)
    calls, count = [call(holder), call(holder), call(holder)], 0
    for n in range(30):
        try:
            await (limiter, other)[n % 2].charge(calls[n % 3], messages_in=1)
            count += 1
        except Refused:
            pass
    assert count == 10


async def test_one_budget_for_all_protocols_and_keys_of_a_consumer(limiter):
    one, two = principal(MESSAGES), principal(MESSAGES, key="k2")
    mqtt, rest = call(one, Protocol.MQTT), call(two, Protocol.HTTP)
    for _ in range(5):
        await limiter.charge(mqtt, messages_in=1)
        await limiter.charge(rest, messages_in=1)
    assert (await refusal(limiter.charge(mqtt, messages_in=1))).reason is Reason.RATE_LIMITED
    assert (await refusal(limiter.charge(rest, messages_in=1))).reason is Reason.RATE_LIMITED


@pytest.mark.parametrize(("scope", "same", "others"), [
    ("key", call(principal(Limit(Metric.MESSAGES_IN, 3, 60.0, scope="key"))),
     call(principal(Limit(Metric.MESSAGES_IN, 3, 60.0, scope="key"), key="k2"))),
    ("ip", call(principal(Limit(Metric.MESSAGES_IN, 3, 60.0, scope="ip"), key="k3")),
     call(principal(Limit(Metric.MESSAGES_IN, 3, 60.0, scope="ip"), key="k3"), ip="2001:db8::1")),
    ("connection", call(principal(Limit(Metric.MESSAGES_IN, 3, 60.0, scope="connection"))),
     call(principal(Limit(Metric.MESSAGES_IN, 3, 60.0, scope="connection")))),
])  # fmt: skip
async def test_a_scope_has_a_budget_of_its_own(limiter, scope, same, others):
    same.budget = others.budget = None
    for _ in range(3):
        await limiter.charge(same, messages_in=1)
    await refusal(limiter.charge(same, messages_in=1))
    await limiter.charge(others, messages_in=1)


@pytest.mark.parametrize("per", [60.0, "month"])
async def test_limits_of_a_connection_need_no_store(limiter, per):
    one = call(principal(Limit(Metric.MESSAGES_IN, 3, per, scope="connection")))
    assert [limiter.charge_now(one, messages_in=1) for _ in range(4)] == [True, True, True, False]
    assert (await refusal(limiter.charge(one, messages_in=1))).retry_after_s > 0
    assert limiter.store.calls == 0


async def test_nothing_is_spent_of_one_limit_when_another_refuses(limiter):
    holder = principal(Limit(Metric.MESSAGES_IN, 100, 60.0), Limit(Metric.BYTES_IN, 50, 3600.0))
    one = call(holder)
    await limiter.charge(one, messages_in=1, bytes_in=50)
    for _ in range(5):
        refused = await refusal(limiter.charge(one, messages_in=1, bytes_in=50))
        assert refused.policies == ("bytes_in-per-3600s",)
        assert not limiter.charge_now(one, messages_in=1, bytes_in=50)
    await limiter.look(holder)
    assert {fact["metric"]: fact["remaining"] for fact in limiter.left(holder)} == {"messages_in": 99, "bytes_in": 0}


async def test_the_longest_window_speaks_first_and_all_violated_are_named(limiter):
    one = call(principal(Limit(Metric.MESSAGES_IN, 2, 1.0), Limit(Metric.MESSAGES_IN, 2, "month")))
    await limiter.charge(one, messages_in=2)
    refused = await refusal(limiter.charge(one, messages_in=2))
    assert refused.reason is Reason.QUOTA_EXCEEDED
    assert refused.policies == ("messages_in-per-month", "messages_in-per-1s")
    assert refused.retry_after_s > 1


async def test_a_month_has_no_burst(limiter):
    one = call(principal(Limit(Metric.MESSAGES_IN, 5, "month", burst=2)))
    await limiter.charge(one, messages_in=5)
    await refusal(limiter.charge(one, messages_in=1))


async def test_a_burst_larger_than_the_amount_is_let_through_once(limiter):
    one = call(principal(Limit(Metric.MESSAGES_IN, 1, 60.0, burst=20)))
    for _ in range(20):
        await limiter.charge(one, messages_in=1)
    assert (await refusal(limiter.charge(one, messages_in=1))).retry_after_s == pytest.approx(60, abs=2)


async def test_a_frame_larger_than_the_bucket_passes_when_it_is_full_and_is_paid_for(limiter):
    one = call(principal(Limit(Metric.BYTES_IN, 10_000, 1.0)))
    await limiter.charge(one, bytes_in=64 * 1024)
    refused = await refusal(limiter.charge(one, bytes_in=1))
    assert refused.retry_after_s == pytest.approx(5.5, abs=0.5)


async def test_a_flood_past_close_at_ends_the_connection_that_makes_it(limiter):
    holder = principal(Limit(Metric.MESSAGES_IN, 2, 3600.0, close_at=5))
    flooding, modest = call(holder), call(holder)
    await limiter.charge(flooding, messages_in=2)
    fatal = [(await refusal(limiter.charge(flooding, messages_in=1))).fatal for _ in range(15)]
    assert fatal[:9] == [False] * 9
    assert fatal[-1]
    assert not (await refusal(limiter.charge(modest, messages_in=1))).fatal


async def test_a_shadow_limit_refuses_nothing_and_counts_what_it_would_have(limiter):
    shadow = Limit(Metric.MESSAGES_IN, 3, 3600.0, mode="shadow")
    one = call(principal(shadow, Limit(Metric.MESSAGES_IN, 8, 7200.0)))
    for _ in range(8):
        await limiter.charge(one, messages_in=1)
    assert reported(limiter, "shadowed") == {(shadow.name, "acme"): 5}
    assert (await refusal(limiter.charge(one, messages_in=1))).policies == ("messages_in-per-7200s",)
    assert b"3600" not in dict(limiter.headers(one)).get(b"ratelimit-policy", b"")


async def test_changed_limits_hold_for_calls_that_are_open(limiter):
    one = call(principal(Limit(Metric.MESSAGES_IN, 1, 3600.0)))
    await limiter.charge(one, messages_in=1)
    await refusal(limiter.charge(one, messages_in=1))
    one.principal = principal(Limit(Metric.MESSAGES_IN, 3, 3600.0))
    for _ in range(3):
        await limiter.charge(one, messages_in=1)
    await refusal(limiter.charge(one, messages_in=1))
    one.principal = principal()
    assert limiter.charge_now(one, messages_in=1000)


async def test_equal_limits_of_a_new_snapshot_go_on_with_the_same_budget(limiter):
    one = call(principal(Limit(Metric.MESSAGES_IN, 4, 3600.0, scope="connection")))
    other_scope = Limit(Metric.MESSAGES_IN, 4, 7200.0)
    one.principal = principal(*one.principal.limits, other_scope)
    await limiter.charge(one, messages_in=4)
    one.principal = principal(*one.principal.limits)
    assert set((await refusal(limiter.charge(one, messages_in=1))).policies) == {
        "messages_in-per-3600s-connection",
        "messages_in-per-7200s",
    }


async def test_who_has_no_limits_pays_nothing(limiter):
    one = call(principal(), Protocol.HTTP)
    await limiter.admit(one)
    assert limiter.charge_now(one, messages_in=10**9, bytes_in=10**12)
    await limiter.charge(one, messages_in=10**9)
    assert limiter.headers(one) == []
    assert limiter.left(one.caller) == []
    limiter.released(one)
    assert limiter.store.calls == 0


async def test_a_steady_stream_waits_for_no_round_trip(limiter):
    one = call(principal(Limit(Metric.MESSAGES_IN, 100_000, 1.0), Limit(Metric.BYTES_IN, 10**12, "month")))
    await limiter.charge(one, messages_in=1, bytes_in=100)
    waits = 0
    for n in range(3000):
        if not limiter.charge_now(one, messages_in=1, bytes_in=100):
            waits += 1
            await limiter.charge(one, messages_in=1, bytes_in=100)
        if n % 10 == 0:
            await asyncio.sleep(0.001)
    assert waits < 60


async def test_an_idle_lease_is_returned_for_others(limiter, other):
    holder = principal(Limit(Metric.MESSAGES_IN, 100, 36_000.0))
    await limiter.charge(call(holder), messages_in=1)
    async with asyncio.timeout(10):
        while True:
            await other.look(holder)
            if other.left(holder)[0]["remaining"] == 99:
                break
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("per", ["month", 36_000_000.0])
async def test_what_others_return_is_found_by_who_knew_the_bucket_dry(clocked, redis, per):
    limiter, clock = clocked
    holder = principal(Limit(Metric.TOKENS_OUT, 1000, per))
    holding = Limiter(redis, owner="process-4")
    reserved = await holding.reserve(call(holder), tokens_in=0, tokens_out=400)
    await limiter.charge(call(holder), tokens_out=600)
    assert (await refusal(limiter.charge(call(holder), tokens_out=1))).retry_after_s > 1000
    holding.correct(reserved, tokens_in=0, tokens_out=0)
    await holding.stop()
    assert (await refusal(limiter.charge(call(holder), tokens_out=1))).retry_after_s > 1000
    clock.now += 1.01 * BELIEVED_S
    for _ in range(400):
        await limiter.charge(call(holder), tokens_out=1)
    assert (await refusal(limiter.charge(call(holder), tokens_out=1))).retry_after_s > 1000


async def test_who_is_refused_is_told_what_others_spent_meanwhile(clocked, other):
    limiter, clock = clocked
    holder = principal(Limit(Metric.TOKENS_OUT, 1000, 36_000.0))
    reserved = await other.reserve(call(holder), tokens_in=0, tokens_out=500)
    await limiter.charge(call(holder), tokens_out=500)
    other.correct(reserved, tokens_in=0, tokens_out=5500)
    await other.look(holder)
    clock.now += 1.01 * BELIEVED_S
    assert (await refusal(limiter.charge(call(holder), tokens_out=1))).retry_after_s == pytest.approx(
        5001 * 36, rel=0.01
    )


async def test_who_asks_ahead_spends_nothing_and_does_not_flood(clocked):
    limiter, clock = clocked
    holder = principal(REQUESTS)

    def ahead() -> Call:
        return replace(call(holder, Protocol.HTTP), handler="me", query=b"would=call:quotes")

    most = int(DRY_RUNS.burst)
    assert await admitted(limiter, [ahead() for _ in range(most)]) == most
    assert limiter.left(holder)[0]["remaining"] == REQUESTS.amount
    assert await admitted(limiter, [ahead() for _ in range(most)]) == REQUESTS.amount
    assert limiter.left(holder)[0]["remaining"] == 0
    clock.now += 1
    assert await admitted(limiter, [ahead() for _ in range(most)]) == DRY_RUNS.amount


async def test_what_a_stopped_process_held_is_returned(redis, other):
    holder = principal(Limit(Metric.MESSAGES_IN, 100, 36_000.0), OPEN)
    stopping = Limiter(redis, owner="process-3")
    await stopping.start()
    await stopping.admit(call(holder))
    await stopping.charge(call(holder), messages_in=1)
    await stopping.stop()
    await other.look(holder)
    assert [fact["remaining"] for fact in other.left(holder)] == [99, 2]
    assert await redis.zcard("open:{consumer:acme}:open_connections") == 0


async def test_a_routes_own_limit_counts_by_the_key_that_it_names(limiter):
    limit = Limit(Metric.REQUESTS, 2, 3600.0)
    one = call(principal(), Protocol.HTTP)
    await limiter.charge_by(one, limit, "tenant-1", 2)
    await refusal(limiter.charge_by(one, limit, "tenant-1"))
    await limiter.charge_by(one, limit, "tenant-2")


def test_a_slot_outlives_missed_heartbeats_and_lapses_within_thirty_seconds():
    assert 2 * BEAT_S < SLOT_S <= 25


async def test_what_is_left_is_told_as_facts(limiter):
    holder = principal(REQUESTS, OPEN, Limit(Metric.BYTES_IN, 5, 1.0, scope="connection"))
    await limiter.admit(call(holder, Protocol.HTTP))
    requests, opened, own = limiter.left(holder)
    assert requests.pop("reset_s") == pytest.approx(2, abs=0.5)
    assert requests == {
        "name": "requests-per-10s", "metric": "requests", "amount": 5, "per": 10.0, "burst": 5, "scope": "consumer",
        "exceed": "reject", "mode": "enforce", "remaining": 4,
    }  # fmt: skip
    assert (opened["remaining"], opened["per"]) == (2, None)
    assert own["remaining"] is None
